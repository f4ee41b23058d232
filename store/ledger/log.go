package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"fednode/store"
)

// Config is what a Log is opened with. A log of one's own has a Signer; a mirror has the Verifier of the log it follows.
type Config struct {
	Name       string // prefix of its buckets, such as "own" or "gov"
	Origin     string // the log's name in its checkpoints
	Signer     note.Signer
	Verifier   note.Verifier
	Now        func() time.Time
	CacheTiles int // default 512, about 8 MiB
}

// A Log is an append-only Merkle log in the node's database. It is safe for concurrent use.
type Log struct {
	c        Config
	db       *store.DB
	verifier note.Verifier
	cache    *tileCache
	now      atomic.Pointer[state]
}

// A state is a log as of one committed batch. It is never changed.
type state struct {
	size       uint64
	root       []byte
	rangeNodes [][]byte // of the compact range [0, size)
	edges      [][]byte // hashes of the last, partial tile of each level
	checkpoint []byte
}

var rangeFactory = &compact.RangeFactory{Hash: nodeHash}

// Errors of a log.
var (
	ErrNoEntry = errors.New("the log has no such entry")
	ErrFork    = errors.New("does not extend the log")
	ErrDamaged = errors.New("the log is damaged")
)

func (l *Log) entries() string { return l.c.Name + "/entries" }
func (l *Log) tiles() string   { return l.c.Name + "/tiles" }
func (l *Log) heads() string   { return l.c.Name + "/head" }

var checkpointKey = []byte("checkpoint")

func indexKey(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }

// Open opens the log kept in db, and checks that its tree is the one its checkpoint signs.
func Open(db *store.DB, c Config) (*Log, error) {
	if c.CacheTiles <= 0 {
		c.CacheTiles = 512
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	l := &Log{c: c, db: db, verifier: c.Verifier, cache: newTileCache(c.CacheTiles)}
	if s, ok := c.Signer.(note.Verifier); ok && l.verifier == nil {
		l.verifier = s
	}
	if l.verifier == nil || l.verifier.Name() != c.Origin || c.Name == "" {
		return nil, fmt.Errorf("log %s (%s): a name and a key called like the origin are required", c.Name, c.Origin)
	}
	if c.Signer != nil && (c.Signer.Name() != c.Origin || c.Signer.KeyHash() != l.verifier.KeyHash()) {
		return nil, fmt.Errorf("log %s (%s): signer and verifier have different keys", c.Name, c.Origin)
	}
	s, err := l.recover()
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", c.Origin, err)
	}
	if s.checkpoint == nil && c.Signer != nil { // a log that is still empty can be exported and verified too
		if s.checkpoint, err = signCheckpoint(c.Origin, s.size, s.root, c.Signer); err != nil {
			return nil, fmt.Errorf("log %s: sign checkpoint: %w", c.Origin, err)
		}
	}
	l.now.Store(s)
	return l, nil
}

// recover rebuilds the state from the tiles.
func (l *Log) recover() (*state, error) {
	s := &state{root: rangeRoot(nil)}
	err := l.db.View(func(tx *store.Tx) error {
		heads := tx.Bucket(l.heads())
		if heads == nil {
			return nil
		}
		s.checkpoint = bytes.Clone(heads.Get(checkpointKey))
		head, err := ParseCheckpoint(s.checkpoint, l.verifier)
		if err != nil {
			return err
		}
		s.size, s.root = uint64(head.Size), head.Root[:]
		tiles := tx.Bucket(l.tiles())
		if tiles == nil && s.size > 0 {
			return fmt.Errorf("%w: it has no tiles", ErrDamaged)
		}
		for level := 0; s.size>>(tileHeight*level) > 0; level++ {
			count := s.size >> (tileHeight * level)
			width := int(count % tileWidth)
			id := tileID{level, count / tileWidth, width}
			b := []byte(nil)
			if width > 0 {
				if b = tiles.Get(id.key()); len(b) < width*hashSize {
					return fmt.Errorf("%w: %s is missing", ErrDamaged, id.path())
				}
			}
			s.edges = append(s.edges, bytes.Clone(b[:width*hashSize]))
		}
		for _, id := range compact.RangeNodes(0, s.size, nil) {
			h, err := l.node(s.size, id, func(t tileID) ([]byte, error) { return readTile(tiles, t) })
			if err != nil {
				return err
			}
			s.rangeNodes = append(s.rangeNodes, h)
		}
		if !bytes.Equal(rangeRoot(s.rangeNodes), s.root) {
			return fmt.Errorf("%w: its tiles do not give the root that its checkpoint signs", ErrDamaged)
		}
		if s.size == 0 {
			return nil
		}
		if b := tx.Bucket(l.entries()); b == nil || b.Get(indexKey(s.size-1)) == nil {
			return fmt.Errorf("%w: entry %d is missing", ErrDamaged, s.size-1)
		}
		return nil
	})
	return s, err
}

// rangeRoot folds the nodes of a compact range from 0 into the root (RFC 6962 section 2.1).
func rangeRoot(nodes [][]byte) []byte {
	if len(nodes) == 0 {
		h, err := tlog.TreeHash(0, nil)
		if err != nil {
			return nil
		}
		return h[:]
	}
	h := nodes[len(nodes)-1]
	for _, n := range slices.Backward(nodes[:len(nodes)-1]) {
		h = nodeHash(n, h)
	}
	return h
}

// A pending is a log in the middle of a batch.
type pending struct {
	rng    *compact.Range
	size   uint64
	edges  [][]byte
	dirty  []bool // levels whose edge is to be written
	given  []byte // a mirror's checkpoint
	sealed bool
}

// begin returns the batch's state of this log.
func (l *Log) begin(tx *store.Tx) (*pending, error) {
	key := "ledger/" + l.c.Name
	if p, ok := tx.Value(key).(*pending); ok {
		if p.sealed {
			return nil, fmt.Errorf("log %s: the batch's checkpoint is signed already", l.c.Origin)
		}
		return p, nil
	}
	s := l.now.Load()
	rng, err := rangeFactory.NewRange(0, s.size, slices.Clone(s.rangeNodes))
	if err != nil {
		return nil, err
	}
	p := &pending{rng: rng, size: s.size, edges: slices.Clone(s.edges), dirty: make([]bool, len(s.edges))}
	for i := range p.edges { // full slices: appending copies, and leaves the committed state alone
		p.edges[i] = p.edges[i][:len(p.edges[i]):len(p.edges[i])]
	}
	tx.SetValue(key, p)
	tx.BeforeCommit(key, func() error { return l.seal(tx, p) })
	return p, nil
}

// Append adds an entry in the transaction of an Update, and returns its index. The tree and the signed checkpoint are
// written once for the whole batch.
func (l *Log) Append(tx *store.Tx, entry []byte) (int64, error) {
	if l.c.Signer == nil {
		return 0, fmt.Errorf("log %s is a mirror; only its owner appends", l.c.Origin)
	}
	if err := checkSize(entry); err != nil {
		return 0, err
	}
	p, err := l.begin(tx)
	if err != nil {
		return 0, err
	}
	return l.add(tx, p, entry)
}

func checkSize(entry []byte) error {
	if len(entry) == 0 || len(entry) > MaxEntry {
		return fmt.Errorf("entry of %d bytes; 1 to %d are allowed", len(entry), MaxEntry)
	}
	return nil
}

func (l *Log) add(tx *store.Tx, p *pending, entry []byte) (int64, error) {
	index := p.size
	b := tx.Bucket(l.entries())
	b.FillPercent = 1 // keys only grow
	if err := b.Put(indexKey(index), entry); err != nil {
		return 0, fmt.Errorf("entry %d: %w", index, err)
	}
	h := leafHash(entry)
	if err := p.rng.Append(h, nil); err != nil {
		return 0, err
	}
	for level := 0; ; level++ {
		if level == len(p.edges) {
			p.edges, p.dirty = append(p.edges, nil), append(p.dirty, false)
		}
		p.edges[level], p.dirty[level] = append(p.edges[level], h...), true
		if len(p.edges[level]) < tileWidth*hashSize {
			break
		}
		full := tileID{level, index >> (tileHeight * (level + 1)), tileWidth}
		if err := l.putTile(tx, full, p.edges[level]); err != nil {
			return 0, err
		}
		h = expand(p.edges[level]).hash(tileHeight, 0)
		p.edges[level], p.dirty[level] = nil, false
	}
	p.size++
	return int64(index), nil
}

func (l *Log) putTile(tx *store.Tx, id tileID, b []byte) error {
	if err := tx.Bucket(l.tiles()).Put(id.key(), bytes.Clone(b)); err != nil {
		return fmt.Errorf("%s: %w", id.path(), err)
	}
	return nil
}

// seal writes the batch's partial tiles and signed checkpoint, and makes the new state current once it is on the disk.
func (l *Log) seal(tx *store.Tx, p *pending) error {
	p.sealed = true
	for level, b := range p.edges {
		if p.dirty[level] {
			if err := l.putTile(tx, tileID{level, p.size >> (tileHeight * level) / tileWidth, len(b) / hashSize}, b); err != nil {
				return err
			}
		}
	}
	s := &state{size: p.size, rangeNodes: p.rng.Hashes(), edges: p.edges, checkpoint: p.given}
	s.root = rangeRoot(s.rangeNodes)
	if l.c.Signer != nil {
		var err error
		if s.checkpoint, err = signCheckpoint(l.c.Origin, s.size, s.root, l.c.Signer); err != nil {
			return fmt.Errorf("sign checkpoint of %s: %w", l.c.Origin, err)
		}
	}
	if err := tx.Bucket(l.heads()).Put(checkpointKey, s.checkpoint); err != nil {
		return err
	}
	tx.AfterCommit(func() { l.now.Store(s) })
	return nil
}

// Extend takes entries and the checkpoint that signs them into a mirror, in the transaction of an Update. It fails with
// ErrFork if they are not a continuation of what the mirror holds, and then changes nothing.
func (l *Log) Extend(tx *store.Tx, entries [][]byte, checkpoint []byte) error {
	if l.c.Signer != nil {
		return fmt.Errorf("log %s is this node's own", l.c.Origin)
	}
	head, err := ParseCheckpoint(checkpoint, l.verifier)
	if err != nil {
		return err
	}
	p, err := l.begin(tx)
	if err != nil {
		return err
	}
	if err := l.continues(p, entries, head); err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := l.add(tx, p, e); err != nil {
			return err
		}
	}
	p.given = bytes.Clone(checkpoint)
	return nil
}

// continues checks that the log with these entries more is the one that head says.
func (l *Log) continues(p *pending, entries [][]byte, head Head) error {
	rng, err := rangeFactory.NewRange(0, p.size, slices.Clone(p.rng.Hashes()))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := checkSize(e); err != nil {
			return err
		}
		if err := rng.Append(leafHash(e), nil); err != nil {
			return err
		}
	}
	if size := p.size + uint64(len(entries)); uint64(head.Size) != size || !bytes.Equal(rangeRoot(rng.Hashes()), head.Root[:]) {
		return fmt.Errorf("checkpoint of %s at size %d, after %d entries here: %w", l.c.Origin, head.Size, size, ErrFork)
	}
	return nil
}

// Origin returns the log's name in its checkpoints.
func (l *Log) Origin() string { return l.c.Origin }

// Verifier returns the verifier of the log's checkpoints.
func (l *Log) Verifier() note.Verifier { return l.verifier }

// Head returns size and root as last committed.
func (l *Log) Head() Head {
	s := l.now.Load()
	return Head{Size: int64(s.size), Root: tlog.Hash(s.root)}
}

// Checkpoint returns the signed checkpoint of the last commit, or nil while the log is empty.
func (l *Log) Checkpoint() []byte { return bytes.Clone(l.now.Load().checkpoint) }

// Entry returns entry i.
func (l *Log) Entry(i int64) (entry []byte, err error) {
	err = l.db.View(func(tx *store.Tx) error {
		if b := tx.Bucket(l.entries()); b != nil && i >= 0 {
			entry = bytes.Clone(b.Get(indexKey(uint64(i))))
		}
		if entry == nil {
			return fmt.Errorf("%w: %d of %d", ErrNoEntry, i, l.Head().Size)
		}
		return nil
	})
	return entry, err
}

// Entries yields the entries from index from up to, not including, index to, in order, as of one moment. An error ends
// the sequence; it is yielded in place of an entry, with index -1.
func (l *Log) Entries(from, to int64) iter.Seq2[int64, []byte] {
	return func(yield func(int64, []byte) bool) {
		const chunk = 1024
		for at := max(from, 0); at < to; {
			var batch [][]byte
			err := l.db.View(func(tx *store.Tx) error {
				b := tx.Bucket(l.entries())
				if b == nil {
					return nil
				}
				c := b.Cursor()
				for k, v := c.Seek(indexKey(uint64(at))); k != nil && len(batch) < chunk && at+int64(len(batch)) < to; k, v = c.Next() {
					batch = append(batch, bytes.Clone(v))
				}
				return nil
			})
			if err != nil {
				yield(-1, nil)
				return
			}
			if len(batch) == 0 {
				return
			}
			for _, e := range batch {
				if !yield(at, e) {
					return
				}
				at++
			}
		}
	}
}

// Prove returns the .tlog-proof (https://c2sp.org/tlog-proof) of entry i against the last checkpoint.
func (l *Log) Prove(i int64) ([]byte, error) {
	s := l.now.Load()
	if i < 0 || uint64(i) >= s.size {
		return nil, fmt.Errorf("%w: %d of %d", ErrNoEntry, i, s.size)
	}
	nodes, err := proof.Inclusion(uint64(i), s.size)
	if err != nil {
		return nil, err
	}
	hashes, err := l.fetch(s.size, nodes)
	if err != nil {
		return nil, err
	}
	return marshalProof(uint64(i), hashes, s.checkpoint), nil
}

// Consistency returns the proof (RFC 6962 section 2.1.2) that the first old entries of the log are those of size new.
func (l *Log) Consistency(old, new int64) ([]tlog.Hash, error) {
	if size := int64(l.now.Load().size); old < 1 || new < old || new > size {
		return nil, fmt.Errorf("consistency of sizes %d and %d: the log has %d entries", old, new, size)
	}
	nodes, err := proof.Consistency(uint64(old), uint64(new))
	if err != nil {
		return nil, err
	}
	hashes, err := l.fetch(uint64(new), nodes)
	if err != nil {
		return nil, err
	}
	out := make([]tlog.Hash, len(hashes))
	for i, h := range hashes {
		out[i] = tlog.Hash(h)
	}
	return out, nil
}

// fetch returns the hashes of a proof in a tree of the given size.
func (l *Log) fetch(size uint64, nodes proof.Nodes) ([][]byte, error) {
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		h, err := l.node(size, id, l.load)
		if err != nil {
			return nil, err
		}
		hashes[i] = h
	}
	return nodes.Rehash(hashes, nodeHash)
}

// node returns the hash of a perfect subtree, from the tile that holds it in a tree of the given size.
func (l *Log) node(size uint64, id compact.NodeID, load func(tileID) ([]byte, error)) ([]byte, error) {
	level, row := int(id.Level)/tileHeight, int(id.Level)%tileHeight
	t := tileID{level: level, index: id.Index >> (tileHeight - row)}
	t.width = int(min(size>>(tileHeight*level)-t.index*tileWidth, tileWidth))
	tree, err := l.cache.get(t, load)
	if err != nil {
		return nil, err
	}
	h := tree.hash(row, id.Index-t.index<<(tileHeight-row))
	if h == nil {
		return nil, fmt.Errorf("%w: %s lacks hash %d of row %d", ErrDamaged, t.path(), id.Index, row)
	}
	return h, nil
}

func (l *Log) load(id tileID) (b []byte, err error) {
	err = l.db.View(func(tx *store.Tx) error {
		b, err = readTile(tx.Bucket(l.tiles()), id)
		return err
	})
	return b, err
}

type getter interface{ Get([]byte) []byte }

func readTile(tiles getter, id tileID) ([]byte, error) {
	b := tiles.Get(id.key())
	if len(b) < id.width*hashSize {
		return nil, fmt.Errorf("%w: %s is missing", ErrDamaged, id.path())
	}
	return bytes.Clone(b[:id.width*hashSize]), nil
}
