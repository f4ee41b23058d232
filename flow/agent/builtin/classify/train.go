// Package classify says what kind of document a text is: multinomial naive Bayes over words, with probabilities that
// are calibrated by temperature on held-out folds. Its nouns are the Example, a text with its class; the Model, counts of
// words; and the Verdict, a probability for every class. It promises the same bytes for the same examples, scores that
// mean what they say, and to read a model of foreign bytes without harm.
//
// The model that comes with fednode knows contract, email, hr, invoice, medical-record and report, in English and some
// German. It was trained on documents written for it; its figures (cross-validated by template, and on held-out
// documents that share no template with them) are printed by TestHeldOut and published in packaging/doc/adr/0009. Train
// your own on your own documents.
package classify

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// Folds of the cross-validation, and the least documents of a class.
const (
	Folds       = 5
	MinPerClass = 5
)

// ErrExamples is a set of examples that can't be learnt from.
var ErrExamples = errors.New("unfit training documents")

// An Example is a text, its class, and the group it belongs to: examples of one group (copies, versions, fillings of a
// form) never stand on both sides of a fold.
type Example struct {
	Label, Text, Group string
}

// A Report says how good a model is. Accuracy, LogLoss, ECE and Confusion are of the cross-validation: every document
// judged by a model that hasn't seen its group. The one temperature was fitted on the same folds.
type Report struct {
	Classes     []string `json:"classes"`
	Documents   []int    `json:"documents"` // of each class
	Words       int      `json:"words"`     // vocabulary
	Folds       int      `json:"folds"`
	Accuracy    float64  `json:"accuracy"`
	LogLoss     float64  `json:"log_loss"`                    // nats
	ECE         float64  `json:"expected_calibration_error"`  // ten equal bins
	Raw         float64  `json:"log_loss_before_calibration"` // at temperature 1
	Temperature float64  `json:"temperature"`
	Confusion   [][]int  `json:"confusion"` // [true class][judged class]
	Model       string   `json:"model"`     // SHA-256 of the model's bytes
	Skipped     []string `json:"skipped,omitempty"`
}

// A counted example is its bag of words and the index of its class.
type counted struct {
	bag   map[string]int
	class int
	fold  int
	group string
}

// Train makes a model and its report. It needs two classes of MinPerClass examples or more; errors wrap ErrExamples.
func Train(examples []Example) (*Model, Report, error) {
	labels, documents, err := classes(examples)
	if err != nil {
		return nil, Report{}, err
	}
	set := count(examples, labels)
	smoothing, judged := choose(set, labels, documents)
	t := fit(judged)
	m := learn(set, -1, labels, documents, smoothing)
	m.temperature = t
	m.seal()
	s := measure(judged, m.temperature, len(labels))
	return m, Report{
		Classes: labels, Documents: documents, Words: len(m.words), Folds: Folds,
		Accuracy: s.Accuracy, LogLoss: s.LogLoss, ECE: s.ECE, Raw: measure(judged, 1, len(labels)).LogLoss,
		Temperature: m.temperature, Confusion: s.Confusion, Model: m.hash,
	}, nil
}

func classes(examples []Example) ([]string, []int, error) {
	n := map[string]int{}
	for _, e := range examples {
		n[e.Label]++
	}
	labels := slices.Sorted(maps.Keys(n))
	if len(labels) < 2 || len(labels) > MaxClasses {
		return nil, nil, fmt.Errorf("%w: %d classes, need 2 to %d; make a folder for each class", ErrExamples, len(labels), MaxClasses)
	}
	documents := make([]int, len(labels))
	for i, l := range labels {
		if !validLabel(l) {
			return nil, nil, fmt.Errorf("%w: class %q; name it with letters, digits, - _ and . only", ErrExamples, l)
		}
		if documents[i] = n[l]; n[l] < MinPerClass {
			return nil, nil, fmt.Errorf("%w: %d documents of class %s, need %d", ErrExamples, n[l], l, MinPerClass)
		}
	}
	return labels, documents, nil
}

// count bags the examples and deals the groups of each class out to the folds in turn.
func count(examples []Example, labels []string) []counted {
	dealt := map[string]int{}
	next := make([]int, len(labels))
	set := make([]counted, len(examples))
	for i, e := range examples {
		class := slices.Index(labels, e.Label)
		key := e.Label + "\x00" + e.Group
		fold, ok := dealt[key]
		if !ok {
			fold = next[class] % Folds
			dealt[key] = fold
			next[class]++
		}
		set[i] = counted{bag(e.Text), class, fold, key}
	}
	slices.SortStableFunc(set, func(a, b counted) int { return strings.Compare(a.group, b.group) })
	return set
}

// learn counts words of all examples outside a fold; -1 leaves none out. Words of a single group are dropped once
// there are more than 100 documents: they tell documents apart, not classes.
func learn(set []counted, fold int, labels []string, documents []int, smoothing float64) *Model {
	k := len(labels)
	counts := map[string][]uint32{}
	in := map[string]int{} // groups that have the word
	last := map[string]string{}
	for _, e := range set {
		if e.fold == fold {
			continue
		}
		for w, n := range e.bag {
			c := counts[w]
			if c == nil {
				c = make([]uint32, k)
				counts[w] = c
			}
			c[e.class] += uint32(n)
			if last[w] != e.group {
				last[w] = e.group
				in[w]++
			}
		}
	}
	if len(set) > 100 {
		maps.DeleteFunc(counts, func(w string, _ []uint32) bool { return in[w] < 2 })
	}
	m := &Model{labels: labels, documents: documents, smoothing: smoothing, temperature: 1}
	m.words = slices.Sorted(maps.Keys(counts))
	if len(m.words) > MaxWords {
		slices.SortStableFunc(m.words, func(a, b string) int { return in[b] - in[a] })
		m.words = m.words[:MaxWords]
		slices.Sort(m.words)
	}
	for _, w := range m.words {
		m.counts = append(m.counts, counts[w]...)
	}
	m.weigh()
	return m
}

// A judged example is what a model that hasn't seen it says.
type judged struct {
	evidence evidence
	class    int
}

// choose cross-validates a few smoothings and returns the one of least calibrated log-loss, with what its models said.
func choose(set []counted, labels []string, documents []int) (float64, []judged) {
	var best float64
	var said []judged
	least := math.Inf(1)
	for _, smoothing := range []float64{0.05, 0.1, 0.2, 0.5, 1} {
		var out []judged
		for fold := range Folds {
			m := learn(set, fold, labels, documents, smoothing)
			for _, e := range set {
				if e.fold == fold {
					out = append(out, judged{m.evidence(e.bag), e.class})
				}
			}
		}
		if loss := measure(out, fit(out), len(labels)).LogLoss; loss < least {
			least, best, said = loss, smoothing, out
		}
	}
	return best, said
}

// fit returns the temperature of least log-loss (Guo et al., On Calibration of Modern Neural Networks, 2017), by golden
// section over its logarithm; the loss is convex in 1/temperature.
func fit(set []judged) float64 {
	lo, hi := math.Log(0.02), math.Log(50)
	const golden = 0.6180339887498949
	loss := func(x float64) float64 { return logLoss(set, math.Exp(x)) }
	a, b := hi-golden*(hi-lo), lo+golden*(hi-lo)
	fa, fb := loss(a), loss(b)
	for hi-lo > 1e-4 {
		if fa < fb {
			hi, b, fb = b, a, fa
			a = hi - golden*(hi-lo)
			fa = loss(a)
		} else {
			lo, a, fa = a, b, fb
			b = lo + golden*(hi-lo)
			fb = loss(b)
		}
	}
	return math.Round(math.Exp((lo+hi)/2)*100) / 100
}

func logLoss(set []judged, temperature float64) float64 {
	sum := 0.0
	for _, j := range set {
		sum -= math.Log(max(j.evidence.probabilities(temperature)[j.class], 1e-12))
	}
	return sum / float64(len(set))
}

// Scores are measures of a model over examples.
type Scores struct {
	Accuracy, LogLoss, ECE float64
	Confusion              [][]int
}

func measure(set []judged, temperature float64, k int) Scores {
	s := Scores{LogLoss: logLoss(set, temperature), Confusion: make([][]int, k)}
	for i := range s.Confusion {
		s.Confusion[i] = make([]int, k)
	}
	var bins [10]struct{ n, right, sure float64 }
	right := 0
	for _, j := range set {
		p := j.evidence.probabilities(temperature)
		best := 0
		for i := range p {
			if p[i] > p[best] {
				best = i
			}
		}
		s.Confusion[j.class][best]++
		b := &bins[min(int(p[best]*10), 9)]
		b.n++
		b.sure += p[best]
		if best == j.class {
			b.right++
			right++
		}
	}
	for _, b := range bins {
		s.ECE += math.Abs(b.right-b.sure) / float64(len(set))
	}
	s.Accuracy = float64(right) / float64(len(set))
	return s
}

// Measure judges examples that the model was not trained on. Examples of classes it doesn't know are an error.
func (m *Model) Measure(examples []Example) (Scores, error) {
	var out []judged
	for _, e := range examples {
		class := slices.Index(m.labels, e.Label)
		if class < 0 {
			return Scores{}, fmt.Errorf("%w: the model doesn't know class %s", ErrExamples, e.Label)
		}
		out = append(out, judged{m.evidence(bag(e.Text)), class})
	}
	if len(out) == 0 {
		return Scores{}, fmt.Errorf("%w: none", ErrExamples)
	}
	return measure(out, m.temperature, len(m.labels)), nil
}

// String returns the report as a table for people.
func (r Report) String() string {
	var b strings.Builder
	total := 0
	for _, n := range r.Documents {
		total += n
	}
	fmt.Fprintf(&b, "%d documents, %d classes, %d words; model %.12s\n", total, len(r.Classes), r.Words, r.Model)
	fmt.Fprintf(&b, "cross-validated in %d folds: accuracy %.3f, log-loss %.3f (%.3f before calibration), calibration error %.3f\n",
		r.Folds, r.Accuracy, r.LogLoss, r.Raw, r.ECE)
	b.WriteString(Table(r.Classes, r.Confusion))
	for _, s := range r.Skipped {
		fmt.Fprintf(&b, "left out: %s\n", s)
	}
	return b.String()
}

// Table returns a confusion matrix as text, a row for each true class, with recall and precision.
func Table(labels []string, confusion [][]int) string {
	wide := 12
	for _, l := range labels {
		wide = max(wide, len(l))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s", wide+2, "true \\ judged")
	for _, l := range labels {
		fmt.Fprintf(&b, " %*.8s", 8, l)
	}
	b.WriteString("   recall precision\n")
	for i, l := range labels {
		fmt.Fprintf(&b, "%-*s", wide+2, l)
		row, column := 0, 0
		for j, n := range confusion[i] {
			fmt.Fprintf(&b, " %8d", n)
			row += n
			column += confusion[j][i]
		}
		fmt.Fprintf(&b, "   %6.3f %9.3f\n", share(confusion[i][i], row), share(confusion[i][i], column))
	}
	return b.String()
}

func share(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}
