package ledger

import (
	"bytes"
	"errors"
	"fmt"

	fproof "github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	maxProof       = 256 << 10 // bytes of a .tlog-proof
	maxProofHashes = 64
)

// ErrProof is wrapped by whatever a proof is refused for.
var ErrProof = errors.New("proof does not verify")

func marshalProof(index uint64, hashes [][]byte, checkpoint []byte) []byte {
	p := fproof.TLogProof{Index: index, Checkpoint: checkpoint}
	for _, h := range hashes {
		p.Hashes = append(p.Hashes, [hashSize]byte(h))
	}
	return p.Marshal()
}

// VerifyProof checks a .tlog-proof: that entry is in the log whose checkpoint the verifier's key signed. It returns the
// checkpoint's head and the entry's index. The proof has exactly one form; extra data is refused, its meaning being
// somebody else's.
func VerifyProof(text, entry []byte, v note.Verifier) (Head, int64, error) {
	fail := func(err error) (Head, int64, error) { return Head{}, 0, fmt.Errorf("%w: %w", ErrProof, err) }
	if len(text) > maxProof {
		return fail(fmt.Errorf("%d bytes; at most %d", len(text), maxProof))
	}
	var p fproof.TLogProof
	if err := p.Unmarshal(text); err != nil {
		return fail(err)
	}
	if len(p.Hashes) > maxProofHashes || p.ExtraData != nil || !bytes.Equal(p.Marshal(), text) {
		return fail(errors.New("not in the one form that it has"))
	}
	head, err := ParseCheckpoint(p.Checkpoint, v)
	if err != nil {
		return fail(err)
	}
	if err := verifyInclusion(p, entry, head); err != nil {
		return fail(err)
	}
	return head, int64(p.Index), nil
}

func verifyInclusion(p fproof.TLogProof, entry []byte, head Head) error {
	hashes := make(tlog.RecordProof, len(p.Hashes))
	for i, h := range p.Hashes {
		hashes[i] = h
	}
	return tlog.CheckRecord(hashes, head.Size, head.Root, int64(p.Index), LeafHash(entry))
}
