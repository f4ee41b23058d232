package config

import (
	"fmt"
	"slices"

	"fednode/store/strictyaml"
)

// Deployment is federated-deployment.yaml: one organisation's node, its
// partners, its machines and its network.
type Deployment struct {
	Organization DeployedOrganization `yaml:"organization"`
	Federation   struct {
		Gateway  Gateway   `yaml:"gateway"`
		Partners []Partner `yaml:"partners"`
	} `yaml:"federation"`
	Deployment Placement  `yaml:"deployment"`
	Networking Networking `yaml:"networking"`
}

// DeployedOrganization is the organisation the file is for.
type DeployedOrganization struct {
	ID           OrgID  `yaml:"id"`
	Name         Text   `yaml:"name"`
	Domain       Domain `yaml:"domain"`
	Region       Label  `yaml:"region"`
	Jurisdiction Label  `yaml:"compliance_jurisdiction"`
}

// Gateway is where the partners reach this organisation.
type Gateway struct {
	Endpoint    HTTPS `yaml:"endpoint"`
	Certificate File  `yaml:"certificate"`
	PrivateKey  File  `yaml:"private_key"`
}

// Partner is another organisation of the federation.
type Partner struct {
	ID          OrgID      `yaml:"id"`
	Endpoint    HTTPS      `yaml:"endpoint"`
	Certificate File       `yaml:"certificate"`
	Trust       TrustLevel `yaml:"trust_level"`
}

// Placement says which component runs where.
type Placement struct {
	Environment Environment     `yaml:"environment"`
	Cloud       []CloudMachine  `yaml:"cloud_components"`
	OnPremises  []ServerMachine `yaml:"on_premises_components"`
}

// CloudMachine is a component on a rented machine.
type CloudMachine struct {
	Component    Component `yaml:"component"`
	Provider     Label     `yaml:"provider"`
	Region       Label     `yaml:"region"`
	InstanceType Label     `yaml:"instance_type"`
}

// ServerMachine is a component on the organisation's own server.
type ServerMachine struct {
	Component Component `yaml:"component"`
	Server    Label     `yaml:"server"`
	Resources struct {
		CPU     Count           `yaml:"cpu"`
		Memory  strictyaml.Size `yaml:"memory"`
		Storage strictyaml.Size `yaml:"storage"`
	} `yaml:"resources"`
}

// Networking is the tunnel and the firewall.
type Networking struct {
	VPN struct {
		Enabled   bool          `yaml:"enabled"`
		Type      VPNType       `yaml:"type"`
		Endpoints []VPNEndpoint `yaml:"endpoints"`
	} `yaml:"vpn"`
	Firewall struct {
		Inbound  []InboundRule  `yaml:"inbound_rules"`
		Outbound []OutboundRule `yaml:"outbound_rules"`
	} `yaml:"firewall"`
}

// VPNEndpoint is one end of the tunnel.
type VPNEndpoint struct {
	Name    Label `yaml:"name"`
	Address Host  `yaml:"address"`
}

// InboundRule lets sources in.
type InboundRule struct {
	Port     Port     `yaml:"port"`
	Protocol Protocol `yaml:"protocol"`
	Source   []Source `yaml:"source"`
	Purpose  Purpose  `yaml:"purpose"`
}

// OutboundRule lets this organisation reach destinations.
type OutboundRule struct {
	Port        Port     `yaml:"port"`
	Protocol    Protocol `yaml:"protocol"`
	Destination []Source `yaml:"destination"`
	Purpose     Purpose  `yaml:"purpose"`
}

// TrustLevel grades a partner.
type TrustLevel string

// Values returns the vocabulary.
func (TrustLevel) Values() []string { return []string{"high", "medium", "low"} }

// Environment says whose machines are used.
type Environment string

// Values returns the vocabulary.
func (Environment) Values() []string { return []string{"cloud", "on-premises", "hybrid"} }

// Component is a part of the product that can have a machine of its own.
type Component string

// Values returns the vocabulary.
func (Component) Values() []string {
	return []string{"federation-gateway", "secure-computation", "data-storage", "workflow-engine", "monitoring"}
}

// VPNType names the tunnel protocol.
type VPNType string

// Values returns the vocabulary.
func (VPNType) Values() []string { return []string{"wireguard", "ipsec"} }

// Protocol is a transport protocol of a firewall rule.
type Protocol string

// Values returns the vocabulary.
func (Protocol) Values() []string { return []string{"tcp", "udp"} }

// Purpose says what a firewall rule is for; federation-api stands for both
// lanes of the node.
type Purpose string

// Values returns the vocabulary.
func (Purpose) Values() []string {
	return []string{"federation-api", "vpn", "monitoring", "storage", "administration"}
}

func deploymentKind() kind {
	const (
		fromNode  = "node.yaml decides; the two are not compared"
		oneBinary = "the node runs as one process where it is started"
		noTunnel  = "no tunnel is set up"
		noRules   = "no packet filter is written"
		byToken   = "partners join by invitation and are known by their member entry"
	)
	return strict[Deployment](KindDeployment, "One organisation's node: its name, its partners, where its components run, its tunnel and its firewall.",
		[]Row{
			later("organization.id", "the organisation this node belongs to", fromNode),
			later("organization.name", "its name", fromNode),
			later("organization.domain", "its DNS domain", fromNode),
			later("organization.region", "where it runs", "no decision looks at regions"),
			later("organization.compliance_jurisdiction", "whose law it is under", fromNode),
			later("federation.gateway.endpoint", "where partners reach it", "node.yaml's listen and advertise decide"),
			later("federation.gateway.certificate", "certificate of that endpoint", "the node certifies itself"),
			later("federation.gateway.private_key", "key of that certificate", "the node keeps its keys in its own keyring"),
			later("federation.partners[].id", "a partner", byToken),
			later("federation.partners[].endpoint", "where the partner is reached", byToken),
			later("federation.partners[].certificate", "the partner's certificate", byToken),
			later("federation.partners[].trust_level", "how far the partner is trusted", "no decision looks at it"),
			later("deployment.environment", "whose machines are used", oneBinary),
			later("deployment.cloud_components[].component", "a component on a rented machine", oneBinary),
			later("deployment.cloud_components[].provider", "who rents it out", oneBinary),
			later("deployment.cloud_components[].region", "where the machine is", oneBinary),
			later("deployment.cloud_components[].instance_type", "its size", oneBinary),
			later("deployment.on_premises_components[].component", "a component on an own server", oneBinary),
			later("deployment.on_premises_components[].server", "which server", oneBinary),
			later("deployment.on_premises_components[].resources.cpu", "processors for it", "no limit is set"),
			later("deployment.on_premises_components[].resources.memory", "memory for it", "no limit is set"),
			later("deployment.on_premises_components[].resources.storage", "disk for it", "no limit is set"),
			gate(later("networking.vpn.enabled", "whether partners are joined by a tunnel", noTunnel)),
			later("networking.vpn.type", "the tunnel's protocol", noTunnel).
				ruling(never("ipsec", "an IPsec tunnel is the real thing or nothing, and this version has none; WireGuard doesn't stand in for it")),
			later("networking.vpn.endpoints[].name", "name of a tunnel end", noTunnel),
			later("networking.vpn.endpoints[].address", "its address", noTunnel),
			later("networking.firewall.inbound_rules[].port", "port let in", noRules),
			later("networking.firewall.inbound_rules[].protocol", "its protocol", noRules),
			later("networking.firewall.inbound_rules[].source[]", "who may come in", noRules),
			later("networking.firewall.inbound_rules[].purpose", "what for; federation-api opens both lanes of the node", noRules),
			later("networking.firewall.outbound_rules[].port", "port let out", noRules),
			later("networking.firewall.outbound_rules[].protocol", "its protocol", noRules),
			later("networking.firewall.outbound_rules[].destination[]", "who may be reached", noRules),
			later("networking.firewall.outbound_rules[].purpose", "what for; federation-api opens both lanes of the node", noRules),
		},
		[]string{
			"organization", "organization.id", "organization.domain",
			"federation.gateway.endpoint", "federation.gateway.certificate", "federation.gateway.private_key",
			"federation.partners[].id", "federation.partners[].endpoint", "federation.partners[].certificate",
			"deployment.environment",
			"deployment.cloud_components[].component", "deployment.cloud_components[].provider",
			"deployment.on_premises_components[].component", "deployment.on_premises_components[].server",
			"networking.vpn.enabled", "networking.vpn.endpoints[].name", "networking.vpn.endpoints[].address",
			"networking.firewall.inbound_rules[].port", "networking.firewall.inbound_rules[].protocol", "networking.firewall.inbound_rules[].source",
			"networking.firewall.outbound_rules[].port", "networking.firewall.outbound_rules[].protocol", "networking.firewall.outbound_rules[].destination",
		},
		checkDeployment)
}

func checkDeployment(c *checker, d *Deployment) {
	known := []OrgID{d.Organization.ID}
	partners := unique[OrgID]{c: c, what: "partner"}
	for i, p := range d.Federation.Partners {
		at := index("federation.partners", i)
		partners.add(at+".id", p.ID)
		if p.ID == d.Organization.ID {
			c.fail(at+".id", "", "%s is the organisation of this file; partners are the others", p.ID)
		}
		known = append(known, p.ID)
		c.certificate(at+".certificate", p.Certificate)
		c.endpoint(at+".endpoint", p.ID, p.Endpoint)
	}
	c.certificate("federation.gateway.certificate", d.Federation.Gateway.Certificate)
	c.privateKey("federation.gateway.private_key", d.Federation.Gateway.PrivateKey)

	switch d.Deployment.Environment {
	case "cloud":
		if len(d.Deployment.OnPremises) > 0 {
			c.fail("deployment.environment", "hybrid", "the environment is cloud, but on_premises_components has entries")
		}
	case "on-premises":
		if len(d.Deployment.Cloud) > 0 {
			c.fail("deployment.environment", "hybrid", "the environment is on-premises, but cloud_components has entries")
		}
	}

	vpn := d.Networking.VPN
	if vpn.Enabled && vpn.Type == "" {
		c.fail("networking.vpn", "type", "an enabled tunnel needs a type; write wireguard or ipsec")
	}
	if vpn.Enabled && len(vpn.Endpoints) == 0 {
		c.fail("networking.vpn", "endpoints", "an enabled tunnel needs at least one of endpoints")
	}
	ends := unique[Label]{c: c, what: "tunnel end"}
	for i, e := range vpn.Endpoints {
		ends.add(index("networking.vpn.endpoints", i)+".name", e.Name)
	}

	inbound := unique[opening]{c: c, what: "rule"}
	for i, r := range d.Networking.Firewall.Inbound {
		checkParties(c, index("networking.firewall.inbound_rules", i)+".source", r.Source, known, &inbound, opening{r.Port, r.Protocol, ""})
	}
	outbound := unique[opening]{c: c, what: "rule"}
	for i, r := range d.Networking.Firewall.Outbound {
		checkParties(c, index("networking.firewall.outbound_rules", i)+".destination", r.Destination, known, &outbound, opening{r.Port, r.Protocol, ""})
	}
}

// opening is one hole in the firewall.
type opening struct {
	port     Port
	protocol Protocol
	party    Source
}

func (o opening) String() string {
	return fmt.Sprintf("for port %d/%s and %s", o.port, o.protocol, o.party)
}

// checkParties checks one side of a firewall rule. A rule about an organisation
// nobody has named is a typing mistake that would leave a port closed, or open
// to the wrong peer.
func checkParties(c *checker, at string, list []Source, known []OrgID, once *unique[opening], o opening) {
	for i, s := range list {
		o.party = s
		once.add(index(at, i), o)
		if org := OrgID(s); org.problem() == "" && !slices.Contains(known, org) {
			c.fail(index(at, i), nearest(string(s), names(known)),
				"organisation %s is neither this one nor a partner; name it in federation.partners", s)
		}
	}
}
