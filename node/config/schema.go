package config

import "fednode/store/strictyaml"

// Kind names one of the file formats Check knows.
type Kind string

// The eleven reference kinds, and the reference envelope.
const (
	KindAudit       Kind = "federated-audit"
	KindDeployment  Kind = "federated-deployment"
	KindIAM         Kind = "federated-iam"
	KindIncident    Kind = "federated-incident-response"
	KindLearning    Kind = "federated-learning"
	KindMonitoring  Kind = "federated-monitoring"
	KindSecurity    Kind = "federated-security"
	KindStorage     Kind = "federated-storage"
	KindWorkflow    Kind = "federated-workflow"
	KindPolicy      Kind = "governance-policy"
	KindComputation Kind = "secure-computation"
	KindMessage     Kind = "message"
)

// Status says what this version does with a field.
type Status string

// The four things that can happen to a field.
const (
	Honoured       Status = "honoured"         // the node does what the field says
	SelectsBuiltin Status = "selects-builtin"  // the value names another engine; the built-in one does that work
	NotEnforced    Status = "not-enforced"     // understood and checked, without effect yet; apply refuses the file
	Refused        Status = "refused-by-apply" // a security mechanism that is never substituted; apply refuses the file
)

// A Row is the declaration of one field: what it means, and what this version
// does with it. Path is a pattern: "[]" stands for every list entry, "*" for
// every key of a map.
type Row struct {
	Path    string
	Meaning string
	Status  Status
	Why     string // completes the sentence about Status; empty for plain Honoured

	// Fixed lists the values of a field that fednode itself fixes: the file is
	// honoured when it says exactly this, whatever the order, and refused by
	// apply otherwise.
	Fixed []string
	// Rulings are values that are treated in another way than Status says.
	Rulings []Ruling
	// Switch marks an "enabled" key: when it is off, the other fields of its
	// section need no enforcement.
	Switch bool
	// Partly marks an honoured field of which something is still missing; Why
	// says what. It is a warning and doesn't keep apply from working.
	Partly bool
}

// A Ruling is the status of one value of a field.
type Ruling struct {
	Value  string
	Status Status
	Why    string
	// Pending marks a SelectsBuiltin whose built-in isn't in this version.
	Pending bool
}

// honoured declares a field that takes effect.
func honoured(path, meaning string) Row {
	return Row{Path: path, Meaning: meaning, Status: Honoured}
}

// partly declares a field that takes effect but for what why says.
func partly(path, meaning, why string) Row {
	return Row{Path: path, Meaning: meaning, Status: Honoured, Why: why, Partly: true}
}

// later declares a field without effect in this version.
func later(path, meaning, why string) Row {
	return Row{Path: path, Meaning: meaning, Status: NotEnforced, Why: why}
}

// fixed declares a field with only one possible content.
func fixed(path, meaning, why string, values ...string) Row {
	return Row{Path: path, Meaning: meaning, Status: Honoured, Why: why, Fixed: values}
}

// note declares a text for people, which decides nothing.
func note(path, meaning string) Row {
	return Row{Path: path, Meaning: meaning, Status: Honoured, Why: "text for people; decides nothing"}
}

// gate declares an on/off key of its section: off is honoured, on is as r says.
func gate(r Row) Row {
	r.Switch = true
	return r.ruling(off("false"))
}

// ruling adds exceptions for single values.
func (r Row) ruling(rs ...Ruling) Row {
	r.Rulings = append(r.Rulings[:len(r.Rulings):len(r.Rulings)], rs...)
	return r
}

// off is the ruling for a value that asks for nothing.
func off(value string) Ruling {
	return Ruling{Value: value, Status: Honoured, Why: "asks for nothing"}
}

// stands is the ruling for a foreign engine whose work a built-in of this
// version does.
func stands(value, builtin string) Ruling {
	return Ruling{Value: value, Status: SelectsBuiltin, Why: builtin}
}

// awaits is the ruling for a foreign engine whose built-in is still to come.
func awaits(value, builtin string) Ruling {
	return Ruling{Value: value, Status: SelectsBuiltin, Why: builtin, Pending: true}
}

// never is the ruling for a security mechanism that only the real thing
// satisfies.
func never(value, why string) Ruling {
	return Ruling{Value: value, Status: Refused, Why: why}
}

// kind is everything Check knows about one format.
type kind struct {
	name     Kind
	about    string
	document any // zero value of the typed document, for reflection
	decode   func(name string, data []byte) (any, error)
	rows     []Row
	required []string // patterns of keys that must be there and not be empty
	check    func(c *checker, document any)
}

// strict builds the kind of a document type of this package.
func strict[T any](name Kind, about string, rows []Row, required []string, check func(*checker, *T)) kind {
	return kind{
		name: name, about: about, document: *new(T), rows: rows, required: required,
		decode: func(file string, data []byte) (any, error) {
			v := new(T)
			if err := strictyaml.Decode(file, data, v); err != nil {
				return nil, err
			}
			return v, nil
		},
		check: func(c *checker, document any) { check(c, document.(*T)) },
	}
}
