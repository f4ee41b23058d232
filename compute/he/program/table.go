package program

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"fednode/compute/he"
)

// ErrForeign: a table of another plan or under another key. Ask its maker for one of the plan at hand.
var ErrForeign = errors.New("does not belong here")

// A KeyID names a key: the SHA-256 of the file of its public half.
type KeyID [32]byte

// IDOf returns the name of the key whose public half has the given file.
func IDOf(publicKey []byte) KeyID { return sha256.Sum256(publicKey) }

func (k KeyID) String() string { return hex.EncodeToString(k[:6]) }

// A Column is an encrypted column: a ciphertext for every N rows. A total is one ciphertext with the same number in
// every slot.
type Column struct {
	Name  string
	Rows  int
	Total bool
	Parts []*he.Ciphertext
}

// A Table is encrypted columns under one plan and key: what an organisation encrypted, or results.
type Table struct {
	Plan    [32]byte
	Key     KeyID
	Results bool
	Columns []Column
}

// The file of a table, version 1. Numbers are little-endian.
//
//	"FNHT"  version=1:8  length of manifest:32  manifest (JSON)
//	for each column, for each of its parts: length:32, the file of a ciphertext
//	SHA-256 of everything before:32×8
const (
	tableMagic   = "FNHT"
	tableVersion = 1
	maxManifest  = 1 << 20
)

type (
	manifest struct {
		Plan    string           `json:"plan"`
		Key     string           `json:"key"`
		Results bool             `json:"results"`
		Columns []manifestColumn `json:"columns"`
	}
	manifestColumn struct {
		Name  string `json:"name"`
		Rows  int    `json:"rows"`
		Total bool   `json:"total"`
		Parts int    `json:"parts"`
	}
)

// Marshal returns t as a file.
func (t *Table) Marshal() ([]byte, error) {
	m := manifest{Plan: hex.EncodeToString(t.Plan[:]), Key: hex.EncodeToString(t.Key[:]), Results: t.Results}
	for _, c := range t.Columns {
		m.Columns = append(m.Columns, manifestColumn{c.Name, c.Rows, c.Total, len(c.Parts)})
	}
	head, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	out := append([]byte(tableMagic), tableVersion)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(head)))
	out = append(out, head...)
	for _, c := range t.Columns {
		for _, ct := range c.Parts {
			b, err := ct.Marshal()
			if err != nil {
				return nil, err
			}
			out = binary.LittleEndian.AppendUint32(out, uint32(len(b)))
			out = append(out, b...)
		}
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...), nil
}

// IsTable says whether a file begins as tables do.
func IsTable(file []byte) bool { return bytes.HasPrefix(file, []byte(tableMagic)) }

// InspectTable reads what a file says of itself: plan, key and columns without their ciphertexts. It checks the hash.
func InspectTable(file []byte) (*Table, error) {
	t, _, err := openTable(file)
	return t, err
}

// openTable reads the manifest, and returns the parts of all columns, one after the other.
func openTable(file []byte) (*Table, [][]byte, error) {
	refuse := func(format string, a ...any) (*Table, [][]byte, error) {
		return nil, nil, fmt.Errorf("%w: "+format, append([]any{he.ErrMalformed}, a...)...)
	}
	head := len(tableMagic) + 1 + 4
	switch {
	case len(file) < head+sha256.Size || !IsTable(file):
		return refuse("no table of encrypted columns")
	case file[4] != tableVersion:
		return nil, nil, fmt.Errorf("%w: a table of format version %d; this build reads %d", he.ErrUnsupported, file[4], tableVersion)
	}
	body := file[:len(file)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], file[len(body):]) {
		return refuse("the table is damaged or cut short, its hash differs")
	}
	length := int64(binary.LittleEndian.Uint32(file[5:]))
	body = body[head:]
	if length > maxManifest || length > int64(len(body)) {
		return refuse("a manifest of %d bytes", length)
	}
	var m manifest
	d := json.NewDecoder(bytes.NewReader(body[:length]))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return refuse("its manifest: %w", err)
	}
	body = body[length:]
	t := &Table{Results: m.Results}
	for _, x := range []struct {
		text string
		to   []byte
	}{{m.Plan, t.Plan[:]}, {m.Key, t.Key[:]}} {
		if b, err := hex.DecodeString(x.text); err != nil || copy(x.to, b) != len(x.to) || len(b) != len(x.to) {
			return refuse("%.80q is no hash", x.text)
		}
	}
	var parts [][]byte
	seen := map[string]bool{}
	for _, c := range m.Columns {
		if c.Rows < 1 || c.Rows > MaxRows || c.Parts < 1 || c.Parts > MaxRows || c.Total && c.Parts != 1 || seen[c.Name] {
			return refuse("column %.80q of %d rows in %d parts", c.Name, c.Rows, c.Parts)
		}
		seen[c.Name] = true
		t.Columns = append(t.Columns, Column{Name: c.Name, Rows: c.Rows, Total: c.Total})
		for range c.Parts {
			if len(body) < 4 || int64(binary.LittleEndian.Uint32(body)) > int64(len(body)-4) {
				return refuse("column %.80q is cut short", c.Name)
			}
			n := binary.LittleEndian.Uint32(body)
			parts = append(parts, body[4:4+n])
			body = body[4+n:]
		}
		t.Columns[len(t.Columns)-1].Parts = make([]*he.Ciphertext, c.Parts)
	}
	if len(body) > 0 || len(t.Columns) == 0 {
		return refuse("%d columns and %d bytes too many", len(t.Columns), len(body))
	}
	return t, parts, nil
}

// ParseTable reads a table of a plan, under a key. It returns ErrForeign for one of another, he.ErrMalformed or
// he.ErrMismatch for what is no such table.
func ParseTable(pl *Plan, key KeyID, file []byte) (*Table, error) {
	t, parts, err := openTable(file)
	if err != nil {
		return nil, err
	}
	if err := t.belongs(pl, key); err != nil {
		return nil, err
	}
	for i := range t.Columns {
		c := &t.Columns[i]
		if want := pl.parts(c.Rows); !c.Total && len(c.Parts) != want {
			return nil, fmt.Errorf("%w: column %.80q of %d rows in %d parts, not %d", he.ErrMalformed, c.Name, c.Rows, len(c.Parts), want)
		}
		for k := range c.Parts {
			if c.Parts[k], err = pl.p.ParseCiphertext(parts[0]); err != nil {
				return nil, fmt.Errorf("column %.80q: %w", c.Name, err)
			}
			parts = parts[1:]
		}
	}
	return t, nil
}

func (t *Table) belongs(pl *Plan, key KeyID) error {
	switch {
	case t.Plan != pl.id:
		return fmt.Errorf("the table %w: it is of plan %x, not %x", ErrForeign, t.Plan[:6], pl.id[:6])
	case t.Key != key:
		return fmt.Errorf("the table %w: it is encrypted under key %s, not %s", ErrForeign, t.Key, key)
	}
	return nil
}

// parts returns how many ciphertexts hold a column.
func (pl *Plan) parts(rows int) int { return (rows + pl.p.N() - 1) / pl.p.N() }
