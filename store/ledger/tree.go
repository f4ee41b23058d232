package ledger

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/transparency-dev/merkle/compact"
	"golang.org/x/mod/sumdb/tlog"
)

// A Hash is one of a log's tree, SHA-256.
type Hash = tlog.Hash

// A Tree is the shape of a log without its entries. The zero Tree is empty; it is never changed.
type Tree struct {
	size  uint64
	nodes [][]byte
}

// Append returns the tree with one entry more.
func (t Tree) Append(entry []byte) (Tree, error) { return t.appendHash(leafHash(entry)) }

// AppendLeaf returns the tree with one entry more, of which only the leaf hash is known.
func (t Tree) AppendLeaf(leaf Hash) (Tree, error) { return t.appendHash(leaf[:]) }

func (t Tree) appendHash(leaf []byte) (Tree, error) {
	rng, err := rangeFactory.NewRange(0, t.size, slices.Clone(t.nodes))
	if err != nil {
		return t, err
	}
	if err := rng.Append(leaf, nil); err != nil {
		return t, err
	}
	return Tree{t.size + 1, rng.Hashes()}, nil
}

// Head returns the tree's size and root.
func (t Tree) Head() Head { return Head{Size: int64(t.size), Root: tlog.Hash(rangeRoot(t.nodes))} }

// HeadAt returns what the head was when the log had that size.
func (l *Log) HeadAt(size int64) (Head, error) {
	s := l.now.Load()
	if size < 0 || uint64(size) > s.size {
		return Head{}, fmt.Errorf("%w: size %d of %d", ErrNoEntry, size, s.size)
	}
	var nodes [][]byte
	for _, id := range compact.RangeNodes(0, uint64(size), nil) {
		h, err := l.node(s.size, id, l.load)
		if err != nil {
			return Head{}, err
		}
		nodes = append(nodes, h)
	}
	return Head{Size: size, Root: tlog.Hash(rangeRoot(nodes))}, nil
}

// VerifyConsistency checks a proof of [Log.Consistency]: that the log of the first head is the beginning of the second's.
func VerifyConsistency(old, new Head, hashes []Hash) error {
	if old.Size < 1 || new.Size < old.Size || len(hashes) > maxProofHashes {
		return fmt.Errorf("%w: from size %d to %d with %d hashes", ErrProof, old.Size, new.Size, len(hashes))
	}
	if err := tlog.CheckTree(hashes, new.Size, new.Root, old.Size, old.Root); err != nil {
		return fmt.Errorf("%w: %w", ErrProof, err)
	}
	return nil
}

// FormatAddCheckpoint returns the body of an add-checkpoint request (https://c2sp.org/tlog-witness): the size that the
// cosigner is taken to know, the proof from there, and the signed checkpoint.
func FormatAddCheckpoint(old int64, hashes []Hash, checkpoint []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range hashes {
		b.WriteString(h.String() + "\n")
	}
	b.WriteByte('\n')
	b.Write(checkpoint)
	return b.String()
}

// ParseAddCheckpoint reads the body of an add-checkpoint request. Nothing is verified.
func ParseAddCheckpoint(body string) (old int64, hashes []Hash, checkpoint []byte, err error) {
	bad := func() (int64, []Hash, []byte, error) {
		return 0, nil, nil, fmt.Errorf("%w: not an add-checkpoint request", errCheckpoint)
	}
	head, rest, ok := strings.Cut(body, "\n\n")
	lines := strings.Split(head, "\n")
	size, found := strings.CutPrefix(lines[0], "old ")
	if !ok || !found || len(lines)-1 > maxProofHashes || len(rest) > maxCheckpoint {
		return bad()
	}
	if old, err = strconv.ParseInt(size, 10, 64); err != nil || old < 0 || strconv.FormatInt(old, 10) != size {
		return bad()
	}
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil || h.String() != line {
			return bad()
		}
		hashes = append(hashes, h)
	}
	return old, hashes, []byte(rest), nil
}
