package config

import (
	"slices"

	"fednode/store/strictyaml"
)

// Storage is federated-storage.yaml: which organisation holds which data, how
// it is asked, and what law it is under.
type Storage struct {
	Nodes      []StorageNode  `yaml:"storage_nodes"`
	Query      QueryEngine    `yaml:"query_engine"`
	Access     StorageAccess  `yaml:"access_control"`
	Encryption DataEncryption `yaml:"encryption"`
	Compliance DataCompliance `yaml:"compliance"`
}

// StorageNode is one organisation's data.
type StorageNode struct {
	Organization OrgID   `yaml:"organization"`
	Endpoint     HTTPS   `yaml:"endpoint"`
	Certificate  File    `yaml:"certificate"`
	Categories   []Label `yaml:"data_categories"`
}

// QueryEngine is how the data is asked.
type QueryEngine struct {
	Type     QueryType           `yaml:"type"`
	Dialect  Dialect             `yaml:"dialect"`
	Protocol FederationProtocol  `yaml:"federation_protocol"`
	Timeout  strictyaml.Duration `yaml:"query_timeout"`
	MaxSize  strictyaml.Size     `yaml:"max_result_size"`
}

// StorageAccess is who decides about access.
type StorageAccess struct {
	Enforcement     Enforcement     `yaml:"policy_enforcement"`
	Synchronization Synchronization `yaml:"policy_synchronization"`
	Default         DefaultPolicy   `yaml:"default_policy"`
}

// DataEncryption says when data is enciphered, and who keeps the keys.
type DataEncryption struct {
	AtRest    bool    `yaml:"data_at_rest"`
	InTransit bool    `yaml:"data_in_transit"`
	InUse     bool    `yaml:"data_in_use"`
	Keys      Custody `yaml:"key_management"`
}

// DataCompliance is what the law asks: where data stays, how long, and how it
// is forgotten.
type DataCompliance struct {
	Residency struct {
		Enabled     bool                 `yaml:"enabled"`
		Enforcement ResidencyEnforcement `yaml:"enforcement"`
	} `yaml:"data_residency"`
	Retention struct {
		Enabled  bool                          `yaml:"enabled"`
		Default  strictyaml.Duration           `yaml:"default_period"`
		Override map[Label]strictyaml.Duration `yaml:"override_by_category"`
	} `yaml:"data_retention"`
	Forgetting struct {
		Enabled     bool                `yaml:"enabled"`
		Propagation strictyaml.Duration `yaml:"propagation_time"`
	} `yaml:"right_to_be_forgotten"`
}

// QueryType is the way a query is spread.
type QueryType string

// Values returns the vocabulary.
func (QueryType) Values() []string { return []string{"distributed-sql"} }

// Dialect is the SQL dialect of queries.
type Dialect string

// Values returns the vocabulary.
func (Dialect) Values() []string { return []string{"postgresql"} }

// FederationProtocol is how the organisations' data hang together.
type FederationProtocol string

// Values returns the vocabulary.
func (FederationProtocol) Values() []string { return []string{"data-mesh"} }

// Enforcement says where decisions are made.
type Enforcement string

// Values returns the vocabulary.
func (Enforcement) Values() []string { return []string{"distributed"} }

// Synchronization says how fast policies spread.
type Synchronization string

// Values returns the vocabulary.
func (Synchronization) Values() []string { return []string{"real-time", "periodic"} }

// Custody says who keeps the keys.
type Custody string

// Values returns the vocabulary.
func (Custody) Values() []string { return []string{"federated", "local"} }

// ResidencyEnforcement says what happens to data that would leave its place.
type ResidencyEnforcement string

// Values returns the vocabulary.
func (ResidencyEnforcement) Values() []string { return []string{"strict", "advisory"} }

func storageKind() kind {
	const (
		noData  = "no dataset is served"
		noQuery = "no query is answered"
		noKeys  = "no dataset is kept"
		noLaw   = "no dataset is kept"
	)
	return strict[Storage](KindStorage, "Which organisation holds which data, how it is queried, and what the law asks of it.",
		[]Row{
			later("storage_nodes[].organization", "whose data", noData),
			later("storage_nodes[].endpoint", "where it is served", noData),
			later("storage_nodes[].certificate", "certificate of that endpoint", noData),
			later("storage_nodes[].data_categories[]", "categories of data held there", noData),
			later("query_engine.type", "the way a query is spread", noQuery),
			later("query_engine.dialect", "SQL dialect of queries", noQuery),
			later("query_engine.federation_protocol", "how the organisations' data hang together", noQuery),
			later("query_engine.query_timeout", "longest run of a query", noQuery),
			later("query_engine.max_result_size", "largest answer", noQuery),
			later("access_control.policy_enforcement", "where decisions are made", noData),
			later("access_control.policy_synchronization", "how fast policies spread", noData),
			fixed("access_control.default_policy", "the decision where no rule applies", "the decision point denies what nothing allows", "deny-all"),
			later("encryption.data_at_rest", "whether stored data is enciphered", noKeys).ruling(off("false")),
			later("encryption.data_in_transit", "whether data on the way is enciphered", noData).ruling(off("false")),
			later("encryption.data_in_use", "whether data is enciphered while it is computed on", noData).ruling(off("false")),
			later("encryption.key_management", "who keeps the keys", noKeys),
			gate(later("compliance.data_residency.enabled", "whether data is tied to a place", noLaw)),
			later("compliance.data_residency.enforcement", "what happens to data that would leave it", noLaw),
			gate(later("compliance.data_retention.enabled", "whether data ends after a time", noLaw)),
			later("compliance.data_retention.default_period", "how long data is kept", noLaw),
			later("compliance.data_retention.override_by_category.*", "how long data of one category is kept instead", noLaw),
			gate(later("compliance.right_to_be_forgotten.enabled", "whether a person can be forgotten", noLaw)),
			later("compliance.right_to_be_forgotten.propagation_time", "time for every organisation to forget", noLaw),
		},
		[]string{
			"storage_nodes", "storage_nodes[].organization", "storage_nodes[].endpoint", "storage_nodes[].certificate", "storage_nodes[].data_categories",
			"query_engine.type", "query_engine.dialect",
			"access_control.default_policy",
			"compliance.data_residency.enabled", "compliance.data_retention.enabled", "compliance.right_to_be_forgotten.enabled",
		},
		checkStorage)
}

func checkStorage(c *checker, s *Storage) {
	orgs := unique[OrgID]{c: c, what: "organisation"}
	var categories []Label
	for i, n := range s.Nodes {
		at := index("storage_nodes", i)
		orgs.add(at+".organization", n.Organization)
		c.certificate(at+".certificate", n.Certificate)
		held := unique[Label]{c: c, what: "data category"}
		for j, category := range n.Categories {
			held.add(index(at+".data_categories", j), category)
			categories = appendNew(categories, category)
		}
	}
	retention := s.Compliance.Retention
	for _, category := range sortedKeys(retention.Override) {
		if !slices.Contains(categories, category) {
			c.fail("compliance.data_retention.override_by_category."+string(category), nearest(string(category), names(categories)),
				"no storage node holds data of category %s", category)
		}
	}
	if retention.Enabled && retention.Default == 0 {
		c.fail("compliance.data_retention", "default_period", "enabled retention needs a default_period")
	}
	if f := s.Compliance.Forgetting; f.Enabled && f.Propagation == 0 {
		c.fail("compliance.right_to_be_forgotten", "propagation_time", "an enabled right to be forgotten needs a propagation_time")
	}
	if r := s.Compliance.Residency; r.Enabled && r.Enforcement == "" {
		c.fail("compliance.data_residency", "enforcement", "enabled residency needs an enforcement")
	}
}
