package flow

import (
	"bytes"
	"context"
	"encoding/base64"
	"hash/maphash"
	"mime"
	"strings"
	"unicode"

	"fednode/flow/agent"
)

// What counts as verbatim copying under no-extraction: this many consecutive words of the input's text, or this many
// consecutive bytes of the input itself, plainly or in base64. It stops copying, not paraphrase or covert channels.
const (
	copiedWords = 8
	copiedBytes = 48
)

func encode64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// bareMediaType drops a media type's parameters, which may say more than a reference should.
func bareMediaType(s string) string {
	t, _, err := mime.ParseMediaType(s)
	if err != nil || !typeRE.MatchString(t) {
		return "application/octet-stream"
	}
	return t
}

// checkExtraction refuses an output that copies from the inputs under no-extraction. The inputs' text is extracted in
// a confined worker: documents may be hostile.
func (e *Engine) checkExtraction(ctx context.Context, inputs []gathered, out agent.Artifact) *StepError {
	for _, in := range inputs {
		text := in.artifact.Data
		if !strings.HasPrefix(in.artifact.MediaType, "text/plain") && !strings.HasPrefix(in.artifact.MediaType, "application/json") {
			t, err := e.c.Agents.ExtractText(ctx, in.artifact)
			if err != nil {
				return &StepError{Code: "no-extraction", Text: "the input's text cannot be read to check the output against it: " + err.Error()}
			}
			text = t
		}
		if copiesWords(text, out.Data) || copiesBytes(in.artifact.Data, out.Data) {
			return &StepError{Code: "no-extraction", Text: "output " + out.Type + " copies from the " + in.artifact.Type +
				", which is under no-extraction; the agent must not quote its input"}
		}
	}
	return nil
}

// copiesWords reports whether output repeats copiedWords consecutive words of text, whatever the punctuation and case.
func copiesWords(text, output []byte) bool {
	in, out := words(text), words(output)
	if len(in) < copiedWords || len(out) < copiedWords {
		return false
	}
	seed := maphash.MakeSeed()
	seen := make(map[uint64]struct{}, len(in))
	shingles(seed, in, func(h uint64) bool { seen[h] = struct{}{}; return true })
	found := false
	shingles(seed, out, func(h uint64) bool {
		_, found = seen[h]
		return !found
	})
	return found
}

func words(b []byte) [][]byte {
	return bytes.FieldsFunc(bytes.ToLower(b), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

func shingles(seed maphash.Seed, w [][]byte, fn func(uint64) bool) {
	var h maphash.Hash
	h.SetSeed(seed)
	for i := 0; i+copiedWords <= len(w); i++ {
		h.Reset()
		for _, x := range w[i : i+copiedWords] {
			h.Write(x)
			h.WriteByte(0)
		}
		if !fn(h.Sum64()) {
			return
		}
	}
}

// A block is the unit in which copied bytes are looked for. Blocks of the input at multiples of its length are sought at
// every offset of the output, so that any run of copiedBytes, twice its length, is sure to hold one; a hit is then
// followed in both directions.
type block [copiedBytes / 2]byte

// copiesBytes reports whether output holds copiedBytes consecutive bytes of data, plainly or base64-encoded.
func copiesBytes(data, output []byte) bool {
	if len(data) < copiedBytes {
		return false
	}
	blocks := make(map[block]int, len(data)/len(block{}))
	for i := 0; i+len(block{}) <= len(data); i += len(block{}) {
		b := block(data[i:])
		if bytes.Count(b[:], b[:1]) < len(b) { // a run of one byte, such as padding, says nothing
			blocks[b] = i
		}
	}
	if holdsRun(blocks, data, output) {
		return true
	}
	for _, run := range bytes.FieldsFunc(output, notBase64) {
		for shift := 0; shift < 4 && len(run)-shift >= copiedBytes; shift++ {
			r := run[shift:]
			r = r[:len(r)/4*4]
			dec := make([]byte, base64.RawStdEncoding.DecodedLen(len(r)))
			if n, err := base64.RawStdEncoding.Decode(dec, r); err == nil && holdsRun(blocks, data, dec[:n]) {
				return true
			}
		}
	}
	return false
}

// holdsRun reports whether b holds copiedBytes consecutive bytes of data around one of its blocks.
func holdsRun(blocks map[block]int, data, b []byte) bool {
	for i := 0; i+len(block{}) <= len(b); i++ {
		at, ok := blocks[block(b[i:])]
		if !ok {
			continue
		}
		from, to := 0, len(block{})
		for at-from > 0 && i-from > 0 && data[at-from-1] == b[i-from-1] {
			from++
		}
		for at+to < len(data) && i+to < len(b) && data[at+to] == b[i+to] {
			to++
		}
		if from+to >= copiedBytes {
			return true
		}
	}
	return false
}

func notBase64(r rune) bool {
	return !(r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '+' || r == '/')
}
