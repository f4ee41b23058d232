package config

import (
	"net/url"

	"fednode/store/strictyaml"
)

// IAM is federated-iam.yaml: who vouches for people and machines, and who
// decides what they may do.
type IAM struct {
	Providers      []IdentityProvider `yaml:"identity_providers"`
	Trust          TrustFramework     `yaml:"trust_framework"`
	Authentication struct {
		Methods []AuthMethod `yaml:"methods"`
	} `yaml:"authentication"`
	Authorization Authorization `yaml:"authorization"`
}

// IdentityProvider vouches for the people of one organisation.
type IdentityProvider struct {
	Organization OrgID        `yaml:"organization"`
	Type         ProviderType `yaml:"type"`
	Issuer       HTTPS        `yaml:"issuer"`
	JWKS         HTTPS        `yaml:"jwks_uri"`
	ClientID     Label        `yaml:"client_id"`
}

// TrustFramework says how nodes know each other.
type TrustFramework struct {
	Type      TrustType `yaml:"type"`
	Authority File      `yaml:"certificate_authority"`
	CRL       HTTPS     `yaml:"certificate_revocation_list"`
	OCSP      HTTPS     `yaml:"ocsp_responder"`
}

// AuthMethod is one way to prove who one is.
type AuthMethod struct {
	Type         AuthMethodType      `yaml:"type"`
	Required     bool                `yaml:"required"`
	Lifetime     strictyaml.Duration `yaml:"lifetime"`
	RotationDays Days                `yaml:"rotation_days"`
}

// Authorization is the decision point.
type Authorization struct {
	Engine       PolicyEngine        `yaml:"policy_engine"`
	Distribution Distribution        `yaml:"policy_distribution"`
	Update       strictyaml.Duration `yaml:"policy_update_interval"`
	Default      DefaultPolicy       `yaml:"default_policy"`
}

// ProviderType is the protocol of an identity provider.
type ProviderType string

// Values returns the vocabulary.
func (ProviderType) Values() []string { return []string{"openid-connect"} }

// TrustType is the way nodes authenticate each other.
type TrustType string

// Values returns the vocabulary.
func (TrustType) Values() []string { return []string{"mutual-tls"} }

// AuthMethodType is a way to authenticate.
type AuthMethodType string

// Values returns the vocabulary.
func (AuthMethodType) Values() []string { return []string{"jwt", "mtls", "api-key"} }

// PolicyEngine names the decision point.
type PolicyEngine string

// Values returns the vocabulary.
func (PolicyEngine) Values() []string { return []string{"builtin", "open-policy-agent"} }

// Distribution says how policies travel.
type Distribution string

// Values returns the vocabulary.
func (Distribution) Values() []string { return []string{"pull", "push"} }

func iamKind() kind {
	const (
		noLogin  = "no identity provider is asked; the node is operated through its unix socket"
		noTokens = "no such credential is issued or accepted"
		ownRoots = "each member's chain is verified against its own roots; shared revocation lists are not read"
	)
	return strict[IAM](KindIAM, "Who vouches for people and machines of each organisation, and how decisions about them are made.",
		[]Row{
			later("identity_providers[].organization", "whose people the provider knows", noLogin),
			later("identity_providers[].type", "its protocol", noLogin),
			later("identity_providers[].issuer", "its issuer identifier (OpenID Connect Discovery 1.0)", noLogin),
			later("identity_providers[].jwks_uri", "where its signing keys are", noLogin),
			later("identity_providers[].client_id", "this federation's name at the provider", noLogin),
			fixed("trust_framework.type", "how nodes authenticate each other", "every connection between nodes is mutual TLS", "mutual-tls"),
			later("trust_framework.certificate_authority", "bundle that holds exactly the members' roots", ownRoots),
			later("trust_framework.certificate_revocation_list", "list of revoked certificates (RFC 5280)", ownRoots),
			later("trust_framework.ocsp_responder", "where certificate status is asked (RFC 6960)", ownRoots),
			later("authentication.methods[].type", "a way to authenticate", noTokens).
				ruling(Ruling{Value: "mtls", Status: Honoured, Why: "every connection between nodes is mutual TLS"}),
			later("authentication.methods[].required", "whether the method is a must", noTokens),
			later("authentication.methods[].lifetime", "how long a token is good (jwt only)", noTokens),
			later("authentication.methods[].rotation_days", "age at which a key is replaced (api-key only)", noTokens),
			honoured("authorization.policy_engine", "the decision point").
				ruling(never("open-policy-agent", "an OPA server is the real thing or nothing, and this version doesn't speak to one; the built-in engine doesn't stand in for it")),
			later("authorization.policy_distribution", "how policies reach the nodes", "policies are read from the node's own folder"),
			later("authorization.policy_update_interval", "how often policies are renewed", "policies change when the operator applies them"),
			fixed("authorization.default_policy", "the decision where no rule applies", "the decision point denies what nothing allows", "deny-all"),
		},
		[]string{
			"identity_providers[].organization", "identity_providers[].type", "identity_providers[].issuer", "identity_providers[].client_id",
			"trust_framework.type", "trust_framework.certificate_authority",
			"authentication.methods[].type", "authorization.policy_engine", "authorization.default_policy",
		},
		checkIAM)
}

func checkIAM(c *checker, m *IAM) {
	orgs := unique[OrgID]{c: c, what: "organisation"}
	for i, p := range m.Providers {
		at := index("identity_providers", i)
		orgs.add(at+".organization", p.Organization)
		if u, err := url.Parse(string(p.Issuer)); err == nil && (u.RawQuery != "" || u.ForceQuery) {
			c.fail(at+".issuer", "", "an issuer identifier has no query (OpenID Connect Discovery 1.0); remove the part from '?'")
		}
	}
	c.certificate("trust_framework.certificate_authority", m.Trust.Authority)

	methods := unique[AuthMethodType]{c: c, what: "method"}
	for i, a := range m.Authentication.Methods {
		at := index("authentication.methods", i)
		methods.add(at+".type", a.Type)
		if a.Lifetime != 0 && a.Type != "jwt" {
			c.fail(at+".lifetime", "", "only jwt has a lifetime; remove it from %s", a.Type)
		}
		if a.RotationDays != 0 && a.Type != "api-key" {
			c.fail(at+".rotation_days", "", "only api-key has rotation_days; remove it from %s", a.Type)
		}
	}
}
