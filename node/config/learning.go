package config

import "math"

// Learning is federated-learning.yaml: a model, and how sites train it
// together.
type Learning struct {
	Model        Model         `yaml:"model"`
	Training     Training      `yaml:"training"`
	Aggregation  Aggregation   `yaml:"aggregation"`
	Privacy      TrainPrivacy  `yaml:"privacy"`
	Participants []Participant `yaml:"participants"`
}

// Model is what is trained.
type Model struct {
	Name         Label        `yaml:"name"`
	Type         ModelType    `yaml:"type"`
	Architecture Architecture `yaml:"architecture"`
	Format       ModelFormat  `yaml:"format"`
}

// Training is what every site does in a round.
type Training struct {
	Rounds       Count         `yaml:"rounds"`
	LocalEpochs  Count         `yaml:"local_epochs"`
	BatchSize    Count         `yaml:"batch_size"`
	LearningRate Positive      `yaml:"learning_rate"`
	Optimizer    Optimizer     `yaml:"optimizer"`
	Loss         Loss          `yaml:"loss"`
	Metrics      []ModelMetric `yaml:"metrics"`
}

// Aggregation is how updates become the next model.
type Aggregation struct {
	Method  AggregationMethod `yaml:"method"`
	Secure  bool              `yaml:"secure_aggregation"`
	Min     Count             `yaml:"min_participants"`
	Max     Count             `yaml:"max_participants"`
	Dropout Ratio             `yaml:"dropout_tolerance"`
}

// TrainPrivacy bounds what an update tells of one record (DP-SGD, Abadi et al.
// 2016).
type TrainPrivacy struct {
	Differential    bool     `yaml:"differential_privacy"`
	NoiseMultiplier Positive `yaml:"noise_multiplier"`
	Clip            Positive `yaml:"l2_norm_clip"`
	Microbatches    Count    `yaml:"microbatches"`
}

// Participant is a site and its say in the average.
type Participant struct {
	ID         OrgID    `yaml:"id"`
	Weight     Positive `yaml:"weight"`
	MinSamples Count    `yaml:"min_samples"`
}

// ModelType is a family of models.
type ModelType string

// Values returns the vocabulary.
func (ModelType) Values() []string { return []string{"neural-network", "linear", "decision-tree"} }

// ModelFormat names the format the model is kept in, and so its engine.
type ModelFormat string

// Values returns the vocabulary.
func (ModelFormat) Values() []string { return []string{"builtin", "tensorflow"} }

// Optimizer is the rule of descent.
type Optimizer string

// Values returns the vocabulary.
func (Optimizer) Values() []string { return []string{"adam", "sgd"} }

// Loss is what training makes small.
type Loss string

// Values returns the vocabulary.
func (Loss) Values() []string {
	return []string{"categorical_crossentropy", "binary_crossentropy", "mean_squared_error"}
}

// ModelMetric is a figure reported after each round.
type ModelMetric string

// Values returns the vocabulary.
func (ModelMetric) Values() []string {
	return []string{"accuracy", "precision", "recall", "f1", "loss"}
}

// AggregationMethod is the rule that makes one model of many.
type AggregationMethod string

// Values returns the vocabulary.
func (AggregationMethod) Values() []string { return []string{"federated-averaging"} }

func learningKind() kind {
	const (
		noTraining = "no model is trained"
		noPrivacy  = "no model is trained, so no noise is added"
		trainer    = "the built-in trainer of embedding, LSTM and dense layers"
	)
	return strict[Learning](KindLearning, "A model, how the sites train it together, and what protects their records.",
		[]Row{
			later("model.name", "name of the model", noTraining),
			later("model.type", "its family", noTraining),
			later("model.architecture.layers[].type", "a layer; its input is the output of the layer before", noTraining),
			later("model.architecture.layers[].vocab_size", "tokens the embedding knows (embedding only)", noTraining),
			later("model.architecture.layers[].embedding_dim", "length of a token's vector (embedding only)", noTraining),
			later("model.architecture.layers[].units", "length of the output vector (lstm, dense)", noTraining),
			later("model.architecture.layers[].activation", "function at the output (dense only)", noTraining),
			later("model.format", "format the model is kept in", noTraining).ruling(awaits("tensorflow", trainer)),
			later("training.rounds", "rounds of training and averaging", noTraining),
			later("training.local_epochs", "passes over the site's data in a round", noTraining),
			later("training.batch_size", "records in one step", noTraining),
			later("training.learning_rate", "length of a step", noTraining),
			later("training.optimizer", "rule of descent", noTraining),
			later("training.loss", "what is made small", noTraining),
			later("training.metrics[]", "figures reported after each round", noTraining),
			later("aggregation.method", "how updates become the next model", noTraining),
			later("aggregation.secure_aggregation", "whether only the sum of the updates is seen", noTraining),
			later("aggregation.min_participants", "fewest sites of a round", noTraining),
			later("aggregation.max_participants", "most sites of a round", noTraining),
			later("aggregation.dropout_tolerance", "share of the sites that may drop out of a round", noTraining),
			gate(later("privacy.differential_privacy", "whether updates are noised (DP-SGD)", noPrivacy)),
			later("privacy.noise_multiplier", "standard deviation of the noise, in clips", noPrivacy),
			later("privacy.l2_norm_clip", "longest gradient of one microbatch", noPrivacy),
			later("privacy.microbatches", "parts of a batch that are clipped one by one", noPrivacy),
			later("participants[].id", "a site", noTraining),
			later("participants[].weight", "its say in the average", noTraining),
			later("participants[].min_samples", "fewest records it must have", noTraining),
		},
		[]string{
			"model", "model.name", "model.type", "model.architecture.layers", "model.architecture.layers[].type",
			"training", "training.rounds", "training.local_epochs", "training.batch_size", "training.learning_rate",
			"training.optimizer", "training.loss",
			"aggregation", "aggregation.method", "aggregation.min_participants",
			"participants", "participants[].id",
		},
		checkLearning)
}

func checkLearning(c *checker, l *Learning) {
	if l.Model.Type == "neural-network" && len(l.Model.Architecture.Layers) == 0 {
		c.fail("model", "architecture", "a neural-network needs an architecture with layers")
	}
	shapes := checkLayers(c, "model.architecture.layers", l.Model.Architecture.Layers)
	checkOutput(c, l, shapes)

	a := l.Aggregation
	if a.Max != 0 && a.Min > a.Max {
		c.fail("aggregation.min_participants", "", "min_participants %d is above max_participants %d", a.Min, a.Max)
	}
	if a.Secure && a.Min < 2 {
		c.fail("aggregation.min_participants", "", "a secure sum of one site is that site's update; write 2 or more")
	}
	if a.Dropout == 1 {
		c.fail("aggregation.dropout_tolerance", "", "with 1 every site may drop out; write less")
	}
	sites := unique[OrgID]{c: c, what: "participant"}
	for i, p := range l.Participants {
		at := index("participants", i)
		sites.add(at+".id", p.ID)
		if p.MinSamples != 0 && p.MinSamples < l.Training.BatchSize {
			c.fail(at+".min_samples", "", "min_samples %d is below batch_size %d: the site couldn't fill one batch", p.MinSamples, l.Training.BatchSize)
		}
	}
	n := Count(len(l.Participants))
	if n > 0 && a.Min > n {
		c.fail("aggregation.min_participants", "", "min_participants is %d, but the file names %d", a.Min, n)
	}
	if a.Max > 0 && n > a.Max {
		c.fail("aggregation.max_participants", "", "max_participants is %d, but the file names %d", a.Max, n)
	}

	p := l.Privacy
	if !p.Differential {
		return
	}
	if p.NoiseMultiplier == 0 {
		c.fail("privacy", "noise_multiplier", "differential_privacy without noise_multiplier protects nobody; add it")
	}
	if p.Clip == 0 {
		c.fail("privacy", "l2_norm_clip", "differential_privacy without l2_norm_clip bounds nothing; add it")
	}
	if p.Microbatches != 0 && l.Training.BatchSize%p.Microbatches != 0 {
		c.fail("privacy.microbatches", "", "%d microbatches don't divide batch_size %d evenly", p.Microbatches, l.Training.BatchSize)
	}
}

// checkOutput compares the last layer with the loss.
func checkOutput(c *checker, l *Learning, shapes []Shape) {
	layers := l.Model.Architecture.Layers
	if len(layers) == 0 || len(shapes) != len(layers) {
		return
	}
	at := index("model.architecture.layers", len(layers)-1)
	last := layers[len(layers)-1]
	switch {
	case last.Type != "dense":
		c.fail(at+".type", "dense", "the last layer is %s; a model ends with a dense layer", last.Type)
	case l.Training.Loss == "categorical_crossentropy" && (last.Activation != "softmax" || last.Units < 2):
		c.fail(at, "softmax", "loss categorical_crossentropy needs a last layer with activation softmax and 2 units or more")
	case l.Training.Loss == "binary_crossentropy" && (last.Activation != "sigmoid"):
		c.fail(at, "sigmoid", "loss binary_crossentropy needs a last layer with activation sigmoid")
	}
	total := 0.0
	for _, s := range shapes {
		total += s.Parameters
	}
	if total > MaxParameters {
		c.fail("model.architecture.layers", "", "the layers have %.0f parameters together; %.0f is the limit", total, float64(MaxParameters))
	}
}

// MaxParameters is the most parameters a model may have.
const MaxParameters = 1 << 28

// Architecture is the model's chain of layers, written as JSON inside the YAML.
type Architecture struct {
	Layers []Layer `yaml:"layers"`
}

// Layer is one of the chain. Which fields it has depends on its type.
type Layer struct {
	Type         LayerType  `yaml:"type"`
	VocabSize    Count      `yaml:"vocab_size"`
	EmbeddingDim Count      `yaml:"embedding_dim"`
	Units        Count      `yaml:"units"`
	Activation   Activation `yaml:"activation"`
}

// LayerType is what a layer does.
type LayerType string

// Values returns the vocabulary.
func (LayerType) Values() []string { return []string{"embedding", "lstm", "dense"} }

// Activation is the function at a dense layer's output.
type Activation string

// Values returns the vocabulary.
func (Activation) Values() []string {
	return []string{"linear", "relu", "sigmoid", "softmax", "tanh"}
}

// Shape is what a layer makes of one record: a vector of Width numbers, or a
// sequence of such vectors. Parameters is NaN when the input width is only
// known from the data.
type Shape struct {
	Sequence   bool
	Width      int
	Parameters float64
}

// maxLayers bounds the chain.
const maxLayers = 64

// checkLayers checks every layer's own fields and that each takes what the one
// before gives. It returns the shapes as far as the chain holds.
func checkLayers(c *checker, at string, layers []Layer) []Shape {
	if len(layers) > maxLayers {
		c.fail(at, "", "%d layers; %d is the limit", len(layers), maxLayers)
		return nil
	}
	shapes := make([]Shape, 0, len(layers))
	broken := false
	for i, l := range layers {
		here := index(at, i)
		if !layerFields(c, here, l) {
			broken = true
		}
		if broken {
			continue
		}
		var in Shape // zero: the record as the dataset has it
		if i > 0 {
			in = shapes[i-1]
		}
		out, problem := l.output(in, i == 0)
		if problem != "" {
			c.fail(here+".type", "", "%s", problem)
			broken = true
			continue
		}
		if l.Activation == "softmax" && i < len(layers)-1 {
			c.fail(here+".activation", "", "softmax belongs to the last layer; write relu, sigmoid, tanh or linear here")
		}
		shapes = append(shapes, out)
	}
	return shapes
}

// layerFields checks that a layer has exactly the fields of its type.
func layerFields(c *checker, at string, l Layer) bool {
	ok := true
	field := func(name string, has, wants, optional bool) {
		switch {
		case has && !wants && !optional:
			c.fail(at+"."+name, "", "a layer of type %s has no %s; remove it", l.Type, name)
			ok = false
		case !has && wants:
			c.fail(at, name, "a layer of type %s needs %s", l.Type, name)
			ok = false
		}
	}
	if enumProblem(l.Type) != "" {
		return false
	}
	field("vocab_size", l.VocabSize != 0, l.Type == "embedding", false)
	field("embedding_dim", l.EmbeddingDim != 0, l.Type == "embedding", false)
	field("units", l.Units != 0, l.Type != "embedding", false)
	field("activation", l.Activation != "", false, l.Type == "dense")
	return ok
}

// output chains one layer onto in. An LSTM returns its last state, so what
// follows it is a vector.
func (l Layer) output(in Shape, first bool) (Shape, string) {
	width := float64(in.Width)
	if first {
		width = math.NaN()
	}
	units := float64(l.Units)
	switch l.Type {
	case "embedding":
		if !first {
			return Shape{}, "an embedding reads token numbers, so it can only be the first layer"
		}
		return Shape{Sequence: true, Width: int(l.EmbeddingDim), Parameters: float64(l.VocabSize) * float64(l.EmbeddingDim)}, ""
	case "lstm":
		if !first && !in.Sequence {
			return Shape{}, "an lstm reads a sequence, but the layer before gives one vector; put it after the embedding"
		}
		// Four gates, each with input, recurrent and bias weights.
		return Shape{Width: int(l.Units), Parameters: 4 * units * (width + units + 1)}, ""
	default: // dense
		if in.Sequence {
			return Shape{}, "a dense layer reads one vector, but the layer before gives a sequence; put an lstm between them"
		}
		return Shape{Width: int(l.Units), Parameters: units * (width + 1)}, ""
	}
}
