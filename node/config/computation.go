package config

import "slices"

// Computation is secure-computation.yaml: which protocols compute on data that
// nobody shows, and what keeps them honest.
type Computation struct {
	Types    []ComputationType   `yaml:"computation_types"`
	Security ComputationSecurity `yaml:"security"`
}

// ComputationType is one family of protocols. Which fields it has depends on
// its type.
type ComputationType struct {
	Type        ComputationFamily `yaml:"type"`
	Protocol    MPCProtocol       `yaml:"protocol"`
	Scheme      HEScheme          `yaml:"scheme"`
	Libraries   []Library         `yaml:"libraries"`
	Operations  []Operation       `yaml:"supported_operations"`
	Framework   LearnFramework    `yaml:"framework"`
	Aggregation SumMethod         `yaml:"aggregation"`
	Models      []ModelType       `yaml:"supported_models"`
}

// ComputationSecurity is the keys, the network and the proofs of computations.
type ComputationSecurity struct {
	Keys struct {
		Type         ThresholdType `yaml:"type"`
		Threshold    Count         `yaml:"threshold"`
		Participants Count         `yaml:"participants"`
		RotationDays Days          `yaml:"key_rotation_days"`
	} `yaml:"key_management"`
	Network struct {
		Protocol  ComputeProtocol `yaml:"protocol"`
		Authority File            `yaml:"certificate_authority"`
	} `yaml:"network"`
	Verification struct {
		Enabled bool         `yaml:"enabled"`
		Method  ProofMethod  `yaml:"method"`
		Proofs  []ProofClaim `yaml:"proofs"`
	} `yaml:"computation_verification"`
}

// ComputationFamily is a family of protocols.
type ComputationFamily string

// Values returns the vocabulary.
func (ComputationFamily) Values() []string {
	return []string{"mpc", "homomorphic", "federated_learning"}
}

// MPCProtocol is a protocol of secure multi-party computation.
type MPCProtocol string

// Values returns the vocabulary.
func (MPCProtocol) Values() []string { return []string{"spdz"} }

// HEScheme is a scheme of homomorphic encryption.
type HEScheme string

// Values returns the vocabulary.
func (HEScheme) Values() []string { return []string{"bfv"} }

// Library names the engine of a computation.
type Library string

// Values returns the vocabulary.
func (Library) Values() []string { return []string{"builtin", "mp-spdz", "seal"} }

// Operation is what can be computed.
type Operation string

// Values returns the vocabulary.
func (Operation) Values() []string { return []string{"addition", "multiplication", "comparison"} }

// LearnFramework names the engine of federated learning.
type LearnFramework string

// Values returns the vocabulary.
func (LearnFramework) Values() []string { return []string{"builtin", "tensorflow-federated"} }

// SumMethod is how updates are summed.
type SumMethod string

// Values returns the vocabulary.
func (SumMethod) Values() []string { return []string{"secure-aggregation", "plain"} }

// ThresholdType is the way a key is shared.
type ThresholdType string

// Values returns the vocabulary.
func (ThresholdType) Values() []string { return []string{"threshold"} }

// ComputeProtocol is the channel between parties.
type ComputeProtocol string

// Values returns the vocabulary.
func (ComputeProtocol) Values() []string { return []string{"tls-1.3"} }

// ProofMethod is how a result is proved.
type ProofMethod string

// Values returns the vocabulary.
func (ProofMethod) Values() []string { return []string{"zero-knowledge"} }

// ProofClaim is what is proved.
type ProofClaim string

// Values returns the vocabulary.
func (ProofClaim) Values() []string { return []string{"computation-correctness", "input-validity"} }

func computationKind() kind {
	const (
		noComputing = "no such computation is run"
		noSharing   = "no key is shared among parties"
		noProofs    = "no result is proved"
	)
	return strict[Computation](KindComputation, "Which protocols compute on data that nobody shows, and what keeps them honest.",
		[]Row{
			later("computation_types[].type", "family of protocols", noComputing),
			later("computation_types[].protocol", "protocol (mpc only)", noComputing),
			later("computation_types[].scheme", "encryption scheme (homomorphic only)", noComputing),
			later("computation_types[].libraries[]", "engine (mpc, homomorphic)", noComputing).
				ruling(awaits("mp-spdz", "the built-in SPDZ engine"), awaits("seal", "the built-in BFV engine")),
			later("computation_types[].supported_operations[]", "what can be computed (mpc, homomorphic)", noComputing),
			later("computation_types[].framework", "engine (federated_learning only)", noComputing).
				ruling(awaits("tensorflow-federated", "the built-in federated trainer")),
			later("computation_types[].aggregation", "how updates are summed (federated_learning only)", noComputing),
			later("computation_types[].supported_models[]", "families of models (federated_learning only)", noComputing),
			later("security.key_management.type", "way a key is shared", noSharing),
			later("security.key_management.threshold", "parties needed to use the key", noSharing),
			later("security.key_management.participants", "parties that hold a share", noSharing),
			later("security.key_management.key_rotation_days", "age at which the key is replaced", noSharing),
			later("security.network.protocol", "channel between the parties", noComputing),
			later("security.network.certificate_authority", "bundle that holds exactly the members' roots", noComputing),
			gate(later("security.computation_verification.enabled", "whether results are proved", noProofs)),
			later("security.computation_verification.method", "how", noProofs),
			later("security.computation_verification.proofs[]", "what is proved", noProofs),
		},
		[]string{
			"computation_types", "computation_types[].type",
			"security.key_management.type", "security.key_management.threshold", "security.key_management.participants",
			"security.network.protocol", "security.computation_verification.enabled",
		},
		checkComputation)
}

func checkComputation(c *checker, s *Computation) {
	families := unique[ComputationFamily]{c: c, what: "computation type"}
	for i, t := range s.Types {
		at := index("computation_types", i)
		families.add(at+".type", t.Type)
		if enumProblem(t.Type) == "" {
			computationFields(c, at, t)
		}
	}

	k := s.Security.Keys
	if k.Threshold > k.Participants && k.Participants > 0 {
		c.fail("security.key_management.threshold", "", "threshold %d is above participants %d: nobody could use the key", k.Threshold, k.Participants)
	}
	if k.Participants > 1 && k.Threshold == 1 {
		c.fail("security.key_management.threshold", "", "with threshold 1 every single share is the key; write 2 or more")
	}
	c.certificate("security.network.certificate_authority", s.Security.Network.Authority)

	v := s.Security.Verification
	if v.Enabled && v.Method == "" {
		c.fail("security.computation_verification", "method", "enabled verification needs a method")
	}
	if v.Enabled && len(v.Proofs) == 0 {
		c.fail("security.computation_verification", "proofs", "enabled verification needs proofs")
	}
	claims := unique[ProofClaim]{c: c, what: "proof"}
	for i, p := range v.Proofs {
		claims.add(index("security.computation_verification.proofs", i), p)
	}
}

// computationFields checks that a computation type has the fields of its
// family, all of them and no others.
func computationFields(c *checker, at string, t ComputationType) {
	fields := []struct {
		name   string
		has    bool
		family []ComputationFamily
	}{
		{"protocol", t.Protocol != "", []ComputationFamily{"mpc"}},
		{"scheme", t.Scheme != "", []ComputationFamily{"homomorphic"}},
		{"libraries", len(t.Libraries) > 0, []ComputationFamily{"mpc", "homomorphic"}},
		{"supported_operations", len(t.Operations) > 0, []ComputationFamily{"mpc", "homomorphic"}},
		{"framework", t.Framework != "", []ComputationFamily{"federated_learning"}},
		{"aggregation", t.Aggregation != "", []ComputationFamily{"federated_learning"}},
		{"supported_models", len(t.Models) > 0, []ComputationFamily{"federated_learning"}},
	}
	for _, f := range fields {
		switch wants := slices.Contains(f.family, t.Type); {
		case wants && !f.has:
			c.fail(at, f.name, "a computation of type %s needs %s", t.Type, f.name)
		case !wants && f.has:
			c.fail(at+"."+f.name, "", "a computation of type %s has no %s; remove it", t.Type, f.name)
		}
	}
	engines := map[Library]ComputationFamily{"mp-spdz": "mpc", "seal": "homomorphic"}
	for i, l := range t.Libraries {
		if family, ok := engines[l]; ok && family != t.Type {
			c.fail(index(at+".libraries", i), "", "%s is an engine for %s, not for %s", l, family, t.Type)
		}
	}
	once := unique[Operation]{c: c, what: "operation"}
	for i, o := range t.Operations {
		here := index(at+".supported_operations", i)
		once.add(here, o)
		if o == "comparison" && t.Type == "homomorphic" {
			c.fail(here, "", "%s can't compare enciphered numbers; remove comparison or use mpc", t.Scheme)
		}
	}
	models := unique[ModelType]{c: c, what: "model"}
	for i, m := range t.Models {
		models.add(index(at+".supported_models", i), m)
	}
}
