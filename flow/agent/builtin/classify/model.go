package classify

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the model that comes with fednode
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
)

// Limits of a model's bytes.
const (
	MaxModel   = 16 << 20
	MaxClasses = 64
	MaxWords   = 200_000
	maxWord    = 64
	magic      = "fednode-classifier 1\n"
)

// ErrModel is a model whose bytes can't be used.
var ErrModel = errors.New("unfit classifier model; train it again with fednode agents train")

//go:generate go test -run TestDefaultModelIsCurrent -update
//go:embed default.model
var defaultBytes []byte

var parseDefault = sync.OnceValues(func() (*Model, error) { return Parse(defaultBytes) })

// Default returns the model that comes with fednode. It is read-only and shared.
func Default() (*Model, error) { return parseDefault() }

// A Model is counts of words in the documents of each class. It is immutable.
//
// Its bytes: "fednode-classifier 1\n"; unsigned varints: smoothing and temperature in thousandths, number of classes,
// for each class its label (length, bytes) and number of documents; number of words, for each word, in ascending order,
// the length it shares with the one before, the rest (length, bytes), and its count in each class; SHA-256 of all that.
type Model struct {
	labels      []string
	documents   []int
	words       []string
	counts      []uint32 // word × class
	smoothing   float64  // Lidstone's, added to every count
	temperature float64  // divides evidence; fitted on held-out folds

	index   map[string]int
	weights []float32 // word × class: log p(word|class), less its mean over classes
	bytes   []byte
	hash    string
}

// Labels returns the classes in alphabetical order.
func (m *Model) Labels() []string { return slices.Clone(m.labels) }

// Words returns the size of the vocabulary.
func (m *Model) Words() int { return len(m.words) }

// Hash returns the SHA-256 of the model's bytes, hexadecimal.
func (m *Model) Hash() string { return m.hash }

// MarshalBinary returns the model's bytes, which Parse reads. It never fails.
func (m *Model) MarshalBinary() ([]byte, error) { return bytes.Clone(m.bytes), nil }

func (m *Model) encode() []byte {
	b := []byte(magic)
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(math.Round(m.smoothing*1000)))
	b = binary.AppendUvarint(b, uint64(math.Round(m.temperature*1000)))
	b = binary.AppendUvarint(b, uint64(len(m.labels)))
	for i, l := range m.labels {
		str(l)
		b = binary.AppendUvarint(b, uint64(m.documents[i]))
	}
	b = binary.AppendUvarint(b, uint64(len(m.words)))
	last := ""
	for i, w := range m.words {
		n := shared(last, w)
		b = binary.AppendUvarint(b, uint64(n))
		str(w[n:])
		for _, c := range m.counts[i*len(m.labels) : (i+1)*len(m.labels)] {
			b = binary.AppendUvarint(b, uint64(c))
		}
		last = w
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func shared(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// seal derives everything that isn't counted: bytes, hash, index and weights.
func (m *Model) seal() *Model {
	m.bytes = m.encode()
	sum := sha256.Sum256(m.bytes)
	m.hash = hex.EncodeToString(sum[:])
	// The bytes hold thousandths; judge by what a reader of them judges by.
	m.smoothing, m.temperature = math.Round(m.smoothing*1000)/1000, math.Round(m.temperature*1000)/1000
	m.weigh()
	return m
}

func (m *Model) weigh() {
	k := len(m.labels)
	totals := make([]float64, k)
	for i, c := range m.counts {
		totals[i%k] += float64(c)
	}
	for i := range totals {
		totals[i] = math.Log(totals[i] + m.smoothing*float64(len(m.words)))
	}
	m.index = make(map[string]int, len(m.words))
	m.weights = make([]float32, len(m.counts))
	row := make([]float64, k)
	for w, word := range m.words {
		m.index[word] = w
		mean := 0.0
		for c := range row {
			row[c] = math.Log(float64(m.counts[w*k+c])+m.smoothing) - totals[c]
			mean += row[c] / float64(k)
		}
		for c, v := range row {
			m.weights[w*k+c] = float32(v - mean)
		}
	}
}

// Parse reads a model's bytes. Errors wrap ErrModel.
func Parse(data []byte) (*Model, error) {
	bad := func(what string) (*Model, error) { return nil, fmt.Errorf("%w: %s", ErrModel, what) }
	if len(data) > MaxModel {
		return bad("larger than 16 MiB")
	}
	body, ok := bytes.CutPrefix(data, []byte(magic))
	if !ok || len(body) < sha256.Size {
		return bad("not a model, or one of another version")
	}
	body = body[:len(body)-sha256.Size]
	if sum := sha256.Sum256(data[:len(data)-sha256.Size]); !bytes.Equal(sum[:], data[len(data)-sha256.Size:]) {
		return bad("its checksum is wrong, it was cut off or changed")
	}
	p := &parser{data: body}
	m := &Model{smoothing: float64(p.uint(1<<30)) / 1000, temperature: float64(p.uint(1<<30)) / 1000}
	classes := p.uint(MaxClasses)
	for range classes {
		m.labels = append(m.labels, p.string(maxWord))
		m.documents = append(m.documents, int(p.uint(math.MaxInt32)))
	}
	words := p.uint(MaxWords)
	last := ""
	for range words {
		n := int(p.uint(maxWord))
		rest := p.string(maxWord)
		if p.failed || n > len(last) || n+len(rest) > maxWord {
			return bad("malformed word")
		}
		w := last[:n] + rest
		if w <= last && len(m.words) > 0 {
			return bad("words out of order")
		}
		for range classes {
			m.counts = append(m.counts, uint32(p.uint(math.MaxInt32)))
		}
		m.words = append(m.words, w)
		last = w
	}
	switch {
	case p.failed || len(p.data) > 0:
		return bad("malformed")
	case classes < 2 || words == 0:
		return bad("fewer than two classes, or no words")
	case m.smoothing <= 0 || m.temperature <= 0:
		return bad("smoothing and temperature must be positive")
	case !ascending(m.labels) || slices.ContainsFunc(m.labels, func(l string) bool { return !validLabel(l) }):
		return bad("malformed class names")
	}
	if m.seal(); !bytes.Equal(m.bytes, data) {
		return bad("not in its one canonical form")
	}
	return m, nil
}

// ascending reports whether labels are in order and none comes twice.
func ascending(labels []string) bool {
	for i := 1; i < len(labels); i++ {
		if labels[i] <= labels[i-1] {
			return false
		}
	}
	return true
}

// validLabel allows what can stand in a classification without quoting anything: a short name, no sentence.
func validLabel(l string) bool {
	for _, c := range l {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return l != "" && len(l) <= maxWord
}

// A parser takes varints and strings off data; after a failure it gives zeros.
type parser struct {
	data   []byte
	failed bool
}

func (p *parser) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(p.data)
	if n <= 0 || v > limit || p.failed {
		p.failed = true
		return 0
	}
	p.data = p.data[n:]
	return v
}

func (p *parser) string(limit uint64) string {
	n := p.uint(limit)
	if n > uint64(len(p.data)) {
		p.failed = true
		return ""
	}
	s := string(p.data[:n])
	p.data = p.data[n:]
	return s
}

// A Verdict is the class of a text and the probability of every class, rounded to four places.
type Verdict struct {
	Label  string
	Score  float64
	Scores map[string]float64
}

// Classify judges a text. A text without a word the model knows gets the same score for every class.
func (m *Model) Classify(text string) Verdict {
	p := m.evidence(bag(text)).probabilities(m.temperature)
	best := 0
	v := Verdict{Scores: make(map[string]float64, len(p))}
	for i, x := range p {
		if x > p[best] {
			best = i
		}
		v.Scores[m.labels[i]] = math.Round(x*1e4) / 1e4
	}
	v.Label = m.labels[best]
	v.Score = v.Scores[v.Label]
	return v
}

// evidence is what a text says for each class: log-likelihoods less their mean, over the square root of the number of
// words. Naive Bayes takes words for independent and grows certain with length; words of one text aren't, and the root
// keeps long texts from drowning the temperature.
type evidence []float64

func (m *Model) evidence(words map[string]int) evidence {
	k := len(m.labels)
	e := make(evidence, k)
	n := 0
	for w, times := range words {
		i, known := m.index[w]
		if !known {
			continue
		}
		n += times
		for c := range e {
			e[c] += float64(times) * float64(m.weights[i*k+c])
		}
	}
	for c := range e {
		e[c] /= math.Sqrt(float64(max(n, 1)))
	}
	return e
}

// probabilities is softmax(e/temperature).
func (e evidence) probabilities(temperature float64) []float64 {
	top := slices.Max(e)
	p := make([]float64, len(e))
	sum := 0.0
	for i, v := range e {
		p[i] = math.Exp((v - top) / temperature)
		sum += p[i]
	}
	for i := range p {
		p[i] /= sum
	}
	return p
}
