package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"fednode/store"
	"fednode/store/jcs"
)

// ReadPath answers the read paths of tlog-tiles: "checkpoint", "tile/LEVEL/INDEX[.p/WIDTH]" and
// "tile/entries/INDEX[.p/WIDTH]". What the log does not hold is ErrNoEntry.
func (l *Log) ReadPath(path string) ([]byte, error) {
	s := l.now.Load()
	if path == "checkpoint" {
		if s.checkpoint == nil {
			return nil, fmt.Errorf("%w: the log is empty", ErrNoEntry)
		}
		return bytes.Clone(s.checkpoint), nil
	}
	t, entries, err := parsePath(path)
	if err != nil {
		return nil, err
	}
	count := s.size >> (tileHeight * t.level)
	if t.index*tileWidth+uint64(t.width) > count {
		return nil, fmt.Errorf("%w: %s", ErrNoEntry, path)
	}
	if entries {
		return l.bundle(t.index, t.width)
	}
	return l.load(t)
}

// bundle returns entries as tlog-tiles carries them: each after its length in 16 bits.
func (l *Log) bundle(index uint64, width int) (b []byte, err error) {
	err = l.db.View(func(tx *store.Tx) error {
		entries := tx.Bucket(l.entries())
		for i := range uint64(width) {
			e := entries.Get(indexKey(index*tileWidth + i))
			if e == nil {
				return fmt.Errorf("%w: entry %d is missing", ErrDamaged, index*tileWidth+i)
			}
			b = append(binary.BigEndian.AppendUint16(b, uint16(len(e))), e...)
		}
		return nil
	})
	return b, err
}

// Files calls fn with every file of the log as a static tlog-tiles directory holds it, as of one moment; the checkpoint
// comes last, so that whatever is cut short is without one.
func (l *Log) Files(fn func(path string, data []byte) error) error {
	s := l.now.Load()
	if s.checkpoint == nil {
		return nil
	}
	for level := 0; s.size>>(tileHeight*level) > 0; level++ {
		count := s.size >> (tileHeight * level)
		for index := uint64(0); index*tileWidth < count; index++ {
			t := tileID{level, index, int(min(count-index*tileWidth, tileWidth))}
			b, err := l.load(t)
			if err != nil {
				return err
			}
			if err := fn(t.path(), b); err != nil {
				return err
			}
			if level > 0 {
				continue
			}
			if b, err = l.bundle(index, t.width); err != nil {
				return err
			}
			if err := fn(bundlePath(index, t.width), b); err != nil {
				return err
			}
		}
	}
	return fn("checkpoint", bytes.Clone(s.checkpoint))
}

// Export writes the log to dir as a static tlog-tiles directory.
func (l *Log) Export(dir string) error {
	return l.Files(func(path string, data []byte) error {
		name := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return os.WriteFile(name, data, 0o644)
	})
}

// VerifyDir verifies a whole log as [Log.Export] writes it, from its entries up: the signed checkpoint, every tile, and
// that each entry is canonical JSON. It calls each, if not nil, with every entry, in order; its error ends the
// verification. The memory it takes does not depend on the log's size.
func VerifyDir(fsys fs.FS, v note.Verifier, each func(i int64, entry []byte) error) (Head, error) {
	signed, err := readFile(fsys, "checkpoint", maxCheckpoint)
	if err != nil {
		return Head{}, err
	}
	head, err := ParseCheckpoint(signed, v)
	if err != nil {
		return Head{}, err
	}
	w := &walk{fsys: fsys, size: uint64(head.Size), rng: rangeFactory.NewEmptyRange(0)}
	for i := uint64(0); i < w.size; i += tileWidth {
		if err := w.bundle(i/tileWidth, int(min(w.size-i, tileWidth)), each); err != nil {
			return Head{}, err
		}
	}
	for level := range w.edges {
		if err := w.tile(level, w.size>>(tileHeight*level)/tileWidth); err != nil {
			return Head{}, err
		}
	}
	if root := rangeRoot(w.rng.Hashes()); !bytes.Equal(root, head.Root[:]) {
		return Head{}, fmt.Errorf("%w: %d entries have root %s; the checkpoint signs %s", ErrProof, w.size, tlog.Hash(root), head.Root)
	}
	return head, nil
}

// readFile reads a file of at most limit bytes.
func readFile(fsys fs.FS, path string, limit int) ([]byte, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("log: read %s: %w", path, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("log: %s has more than %d bytes", path, limit)
	}
	return b, nil
}

// A walk recomputes a log from its entries, and compares every tile on the way.
type walk struct {
	fsys  fs.FS
	size  uint64
	next  uint64
	rng   *compact.Range
	edges [][]byte
}

var errBundle = errors.New("entry bundle is cut short or too long")

func (w *walk) bundle(index uint64, width int, each func(int64, []byte) error) error {
	path := bundlePath(index, width)
	b, err := readFile(w.fsys, path, width*(2+MaxEntry))
	if err != nil {
		return err
	}
	for range width {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return fmt.Errorf("%s: %w", path, errBundle)
		}
		n := 2 + int(binary.BigEndian.Uint16(b))
		if err := w.entry(b[2:n], each); err != nil {
			return err
		}
		b = b[n:]
	}
	if len(b) != 0 {
		return fmt.Errorf("%s: %w", path, errBundle)
	}
	return nil
}

func (w *walk) entry(e []byte, each func(int64, []byte) error) error {
	if canonical, err := jcs.Transform(e); err != nil || !bytes.Equal(canonical, e) {
		return fmt.Errorf("entry %d is not canonical JSON", w.next)
	}
	h := leafHash(e)
	if err := w.rng.Append(h, nil); err != nil {
		return err
	}
	for level := 0; ; level++ {
		if level == len(w.edges) {
			w.edges = append(w.edges, nil)
		}
		w.edges[level] = append(w.edges[level], h...)
		if len(w.edges[level]) < tileWidth*hashSize {
			break
		}
		if err := w.tile(level, w.next>>(tileHeight*(level+1))); err != nil {
			return err
		}
		h = expand(w.edges[level]).hash(tileHeight, 0)
		w.edges[level] = nil
	}
	if each != nil {
		if err := each(int64(w.next), e); err != nil {
			return fmt.Errorf("entry %d: %w", w.next, err)
		}
	}
	w.next++
	return nil
}

// tile compares the level's gathered hashes with the tile in the export.
func (w *walk) tile(level int, index uint64) error {
	want := w.edges[level]
	if len(want) == 0 {
		return nil
	}
	t := tileID{level, index, len(want) / hashSize}
	b, err := readFile(w.fsys, t.path(), len(want))
	if err != nil {
		return err
	}
	if !bytes.Equal(b, want) {
		return fmt.Errorf("%w: %s is not what the entries give", ErrProof, t.path())
	}
	return nil
}
