package compute

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// A frame, version 1; numbers are big-endian:
//
//	"FNCP"  version=1:8  kind:8  sender:16  sequence:32  session:32×8
//	length of label:8  label  payload  signature:64×8 (broadcast and private frames)
//
// The signature is Ed25519 over "fednode/compute/message/v1\n", the frame up to its
// label, the recipient (16 bits, 0xffff for all) and the SHA-256 of the payload: who
// holds hash and signature of two payloads can show that somebody contradicted
// himself without having either.

const (
	frameMagic   = "FNCP"
	frameVersion = 1
	frameHead    = 4 + 1 + 1 + 2 + 4 + 32 + 1
	maxLabel     = 64
	// frameOverhead is what a frame adds to its payload at most.
	frameOverhead = frameHead + maxLabel + ed25519.SignatureSize
	everybody     = 0xffff
)

type kind uint8

const (
	kindHello kind = iota + 1
	kindBroadcast
	kindEcho
	kindPrivate
	kindEvidence
	kindAbort
)

func (k kind) signed() bool { return k == kindBroadcast || k == kindPrivate }

// A frame as its recipient takes it apart.
type frame struct {
	kind      kind
	sender    int
	sequence  uint32
	session   [32]byte
	label     string
	payload   []byte
	signature []byte // of signed kinds
	sum       *[32]byte
}

// digest returns the SHA-256 of the payload, computed once.
func (f *frame) digest() [32]byte {
	if f.sum == nil {
		sum := sha256.Sum256(f.payload)
		f.sum = &sum
	}
	return *f.sum
}

var errFrame = errors.New("not a frame of this version")

// prefix returns the frame up to its label.
func (f *frame) prefix() []byte {
	b := make([]byte, 0, frameOverhead+len(f.payload))
	b = append(b, frameMagic...)
	b = append(b, frameVersion, byte(f.kind))
	b = binary.BigEndian.AppendUint16(b, uint16(f.sender))
	b = binary.BigEndian.AppendUint32(b, f.sequence)
	b = append(b, f.session[:]...)
	b = append(b, byte(len(f.label)))
	return append(b, f.label...)
}

func (f *frame) marshal() []byte {
	return append(append(f.prefix(), f.payload...), f.signature...)
}

// signedText returns what the signature covers, for a payload of which only the
// hash may be known.
func (f *frame) signedText(recipient int, payload [32]byte) []byte {
	b := append([]byte("fednode/compute/message/v1\n"), f.prefix()...)
	b = binary.BigEndian.AppendUint16(b, uint16(recipient))
	return append(b, payload[:]...)
}

func (f *frame) verify(key ed25519.PublicKey, recipient int) bool {
	return ed25519.Verify(key, f.signedText(recipient, f.digest()), f.signature)
}

// parseFrame takes a frame apart; payload and signature are not copied.
func parseFrame(b []byte) (*frame, error) {
	if len(b) < frameHead || string(b[:4]) != frameMagic || b[4] != frameVersion {
		return nil, errFrame
	}
	f := &frame{
		kind:     kind(b[5]),
		sender:   int(binary.BigEndian.Uint16(b[6:])),
		sequence: binary.BigEndian.Uint32(b[8:]),
		session:  [32]byte(b[12:44]),
	}
	if f.kind < kindHello || f.kind > kindAbort {
		return nil, fmt.Errorf("%w: kind %d", errFrame, f.kind)
	}
	label, rest := int(b[44]), b[frameHead:]
	if label > maxLabel || label > len(rest) {
		return nil, fmt.Errorf("%w: a label of %d bytes", errFrame, label)
	}
	f.label, f.payload = string(rest[:label]), rest[label:]
	if f.kind.signed() {
		at := len(f.payload) - ed25519.SignatureSize
		if at < 0 {
			return nil, fmt.Errorf("%w: no signature", errFrame)
		}
		f.payload, f.signature = f.payload[:at:at], f.payload[at:]
	}
	return f, nil
}
