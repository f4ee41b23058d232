package flow

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"fednode/hsm"
	"fednode/hsm/durable"
	"fednode/store"
	"fednode/transport"
)

// MaxArtifact is the largest artifact a node takes in, in bytes: agents get their inputs in memory.
const MaxArtifact = 64 << 20

// An ArtifactRef says of an artifact what everybody in the run may know: never its content, its name or a plain hash.
type ArtifactRef struct {
	ID           string            `json:"artifact_id"`
	Type         string            `json:"type"`
	Version      int               `json:"version"` // set by the initiator; 1 is the first of its type in the run
	MediaType    string            `json:"media_type"`
	Size         int64             `json:"size"`
	Commitment   string            `json:"commitment"` // base64 HMAC-SHA-256(salt, bytes); the salt travels in the recipient's stream only
	MadeBy       string            `json:"made_by,omitempty"`
	Origin       transport.OrgID   `json:"origin"` // whose data it is, or is derived from; empty if from several organisations' data
	Restrictions []string          `json:"restrictions,omitempty"`
	Holders      []transport.OrgID `json:"holders,omitempty"`
}

// How an organisation came by an artifact.
const (
	Owner    = "owner"
	Made     = "made"
	Received = "received"
)

// Where the bytes of an artifact are.
const (
	InMemory = "memory"
	OnDisk   = "disk"
	Released = "released"
)

// derivedOrigin returns whose data something is that executor made of inputs of the given origins: its own if there were
// none, nobody's alone if they were of several. Restrictions are lifted for the origin only, so that data of two
// organisations stays restricted for both.
func derivedOrigin(executor transport.OrgID, inputs []transport.OrgID) transport.OrgID {
	if len(inputs) == 0 {
		return executor
	}
	for _, o := range inputs {
		if o != inputs[0] {
			return ""
		}
	}
	return inputs[0]
}

// A Holding is this organisation's own record of an artifact that it has or had.
type Holding struct {
	Run       RunID           `json:"run"`
	Agreement string          `json:"agreement"` // it moves under no other
	Artifact  ArtifactRef     `json:"artifact"`
	How       string          `json:"how"`
	From      transport.OrgID `json:"from,omitempty"`
	Where     string          `json:"where"`
	Redacted  bool            `json:"redacted,omitempty"` // a made artifact supersedes it or it is itself such a version
	At        string          `json:"at"`
}

func (h Holding) key() string { return holdingKey(h.Run, h.Agreement, h.Artifact.ID) }

// holdingKey has the agreement in it because runs and artifacts are named by initiators: one who takes the names of
// another's run must not come upon what is held for that.
func holdingKey(run RunID, agreement, artifact string) string {
	return string(run) + "/" + agreement + "/" + artifact
}

// content is an artifact's bytes with what only an entitled holder may know of it.
type content struct {
	Name string `json:"name,omitempty"`
	Salt []byte `json:"salt"`
	data []byte

	until time.Time // when memory forgets it, if nobody closes the run before
}

// commit returns the salted commitment to data.
func commit(salt, data []byte) string {
	mac := hmac.New(sha256.New, salt)
	mac.Write(data)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func newID(prefix string) string {
	b := make([]byte, 12)
	rand.Read(b)
	return prefix + "-" + hex.EncodeToString(b)
}

// errGone reports that an artifact's bytes are no longer here; the run fetches them from another holder.
var errGone = errors.New("artifact is no longer held here")

// artifacts keeps the bytes: in memory under no-storage, else one sealed file each. Holdings are journalled by the
// caller.
type artifacts struct {
	dir    string
	sealer hsm.Sealer
	limit  int64 // of memory for restricted artifacts, in bytes

	mu   sync.Mutex
	mem  map[string]*content // holding key → content
	used int64
}

func (a *artifacts) path(key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(a.dir, hex.EncodeToString(sum[:16]))
}

// hold keeps c under h's key, where the restrictions allow. The file of a stored artifact is durable on return.
func (a *artifacts) hold(h *Holding, c *content) error {
	if slices.Contains(h.Artifact.Restrictions, NoStorage) && h.How != Owner {
		h.Where = InMemory
		return a.holdInMemory(h.key(), c)
	}
	h.Where = OnDisk
	return a.holdOnDisk(h.key(), c)
}

func (a *artifacts) holdInMemory(key string, c *content) error {
	if err := memoryOnly(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if held, ok := a.mem[key]; ok {
		if bytes.Equal(held.data, c.data) {
			return nil
		}
		return errors.New("another artifact is held under the same id")
	}
	if a.used+int64(len(c.data)) > a.limit {
		return fmt.Errorf("no-storage data over the node's memory limit of %d MiB; finish or cancel runs, or raise limits.memory", a.limit>>20)
	}
	a.used += int64(len(c.data))
	a.mem[key] = c
	return nil
}

func (a *artifacts) holdOnDisk(key string, c *content) error {
	head, err := json.Marshal(c)
	if err != nil {
		return err
	}
	plain := slices.Concat(binary.BigEndian.AppendUint32(nil, uint32(len(head))), head, c.data)
	err = durable.ReplaceWith(a.path(key), 0o600, func(f io.Writer) error {
		w, err := a.sealer.SealStream(f, []byte(key))
		if err != nil {
			return err
		}
		if _, err := w.Write(plain); err != nil {
			return err
		}
		return w.Close()
	})
	if err != nil {
		return fmt.Errorf("store artifact: %w", err)
	}
	return nil
}

// get returns the bytes held under key.
func (a *artifacts) get(h Holding) (*content, error) {
	a.mu.Lock()
	c, ok := a.mem[h.key()]
	if ok { // a copy, so that releasing the artifact cannot tear what a reader gets
		c = &content{Name: c.Name, Salt: c.Salt, data: bytes.Clone(c.data)}
	}
	a.mu.Unlock()
	switch {
	case ok:
		return c, nil
	case h.Where != OnDisk:
		return nil, errGone
	}
	return a.load(h.key())
}

func (a *artifacts) load(key string) (*content, error) {
	f, err := os.Open(a.path(key))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errGone
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	r, err := a.sealer.OpenStream(f, st.Size(), []byte(key))
	if err != nil {
		return nil, fmt.Errorf("stored artifact: %w", err)
	}
	body, err := r.From(0)
	if err != nil {
		return nil, fmt.Errorf("stored artifact: %w", err)
	}
	defer body.Close()
	plain, err := io.ReadAll(body)
	if err != nil {
		return nil, fmt.Errorf("stored artifact: %w", err)
	}
	if len(plain) < 4 || int(binary.BigEndian.Uint32(plain)) > len(plain)-4 {
		return nil, errors.New("stored artifact: header is cut short")
	}
	n := 4 + int(binary.BigEndian.Uint32(plain))
	c := &content{data: plain[n:]}
	if err := json.Unmarshal(plain[4:n], c); err != nil {
		return nil, fmt.Errorf("stored artifact: header: %w", err)
	}
	return c, nil
}

// release forgets in-memory bytes, zeroing them.
func (a *artifacts) release(keys []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range keys {
		if c, ok := a.mem[k]; ok {
			a.used -= int64(len(c.data))
			clear(c.data)
			delete(a.mem, k)
		}
	}
}

// drop forgets one artifact that a failed attempt left.
func (a *artifacts) drop(h Holding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.mem[h.key()]; ok {
		a.used -= int64(len(c.data))
		clear(c.data)
		delete(a.mem, h.key())
		return
	}
	os.Remove(a.path(h.key()))
}

// offsetReader opens a content at an offset, for a resumed transfer.
func offsetReader(c *content, offset int64) (io.ReadCloser, error) {
	if offset < 0 || offset > int64(len(c.data)) {
		return nil, fmt.Errorf("offset %d of %d bytes", offset, len(c.data))
	}
	return io.NopCloser(bytes.NewReader(c.data[offset:])), nil
}

// Holdings returns this organisation's records of artifacts, of one run or, with run empty, of all.
func (e *Engine) Holdings(run RunID) (out []Holding, err error) {
	prefix := ""
	if run != "" {
		prefix = string(run) + "/"
	}
	err = e.c.DB.View(func(tx *store.Tx) error {
		return each(tx, bucketHoldings, prefix, func(_ string, h Holding) error {
			out = append(out, h)
			return nil
		})
	})
	return out, err
}

// Artifact returns the bytes of an artifact held here, with its record and its name, for this organisation's own
// operator.
func (e *Engine) Artifact(run RunID, id string) (h Holding, name string, data []byte, err error) {
	all, err := e.Holdings(run)
	if err != nil {
		return h, "", nil, err
	}
	i := slices.IndexFunc(all, func(h Holding) bool { return h.Artifact.ID == id })
	if i < 0 {
		return h, "", nil, fmt.Errorf("artifact %s of run %s: %w", id, run, ErrNotFound)
	}
	h = all[i]
	c, err := e.artifacts.get(h)
	if err != nil {
		return h, "", nil, fmt.Errorf("artifact %s of run %s: %w", id, run, err)
	}
	return h, c.Name, c.data, nil
}
