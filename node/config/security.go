package config

import (
	"slices"

	"fednode/store/strictyaml"
)

// Security is federated-security.yaml: the channel, the certificates, the keys
// and the watch over them.
type Security struct {
	Communication   SecureChannel  `yaml:"communication"`
	Certificates    Certificates   `yaml:"certificate_management"`
	Keys            KeyManagement  `yaml:"key_management"`
	Enclaves        Enclaves       `yaml:"secure_enclaves"`
	Intrusion       IntrusionWatch `yaml:"intrusion_detection"`
	Vulnerabilities VulnManagement `yaml:"vulnerability_management"`
}

// SecureChannel is how nodes talk.
type SecureChannel struct {
	Protocol     ChannelProtocol `yaml:"protocol"`
	Suites       []CipherSuite   `yaml:"cipher_suites"`
	Verification Verification    `yaml:"certificate_verification"`
	Transparency Toggle          `yaml:"certificate_transparency"`
}

// Certificates is how node certificates are made and renewed.
type Certificates struct {
	Authority  Label               `yaml:"authority"`
	Validity   strictyaml.Duration `yaml:"validity_period"`
	Algorithm  KeyAlgorithm        `yaml:"key_algorithm"`
	Size       Count               `yaml:"key_size"`
	Renewal    strictyaml.Duration `yaml:"renewal_threshold"`
	Revocation RevocationCheck     `yaml:"revocation_check"`
}

// KeyManagement is where private keys live and how they are got back.
type KeyManagement struct {
	Storage   KeyStorage          `yaml:"storage"`
	Rotation  strictyaml.Duration `yaml:"rotation_period"`
	Backup    Toggle              `yaml:"backup"`
	Threshold Count               `yaml:"recovery_threshold"`
	Shares    Count               `yaml:"recovery_shares"`
}

// Enclaves is the hardware that runs code nobody can look into.
type Enclaves struct {
	Enabled     bool              `yaml:"enabled"`
	Technology  EnclaveTechnology `yaml:"technology"`
	Attestation Toggle            `yaml:"attestation"`
	Code        Toggle            `yaml:"code_verification"`
}

// IntrusionWatch is the look-out for break-ins.
type IntrusionWatch struct {
	Network   Toggle   `yaml:"network_monitoring"`
	Behaviour Toggle   `yaml:"behavioral_analysis"`
	Anomaly   Toggle   `yaml:"anomaly_detection"`
	Threshold Severity `yaml:"alert_threshold"`
}

// VulnManagement is the upkeep of the software.
type VulnManagement struct {
	Scanning Frequency `yaml:"scanning_frequency"`
	Patches  Patching  `yaml:"patch_management"`
	Risk     Toggle    `yaml:"risk_assessment"`
	SLA      struct {
		Critical strictyaml.Duration `yaml:"critical"`
		High     strictyaml.Duration `yaml:"high"`
		Medium   strictyaml.Duration `yaml:"medium"`
		Low      strictyaml.Duration `yaml:"low"`
	} `yaml:"remediation_sla"`
}

// ChannelProtocol is the protocol between nodes.
type ChannelProtocol string

// Values returns the vocabulary.
func (ChannelProtocol) Values() []string { return []string{"mtls-1.3", "mtls-1.2"} }

// CipherSuite is a suite of TLS 1.3 (RFC 8446, B.4).
type CipherSuite string

// Values returns the vocabulary.
func (CipherSuite) Values() []string {
	return []string{"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}
}

// Verification is how a peer's certificate is looked at.
type Verification string

// Values returns the vocabulary.
func (Verification) Values() []string { return []string{"strict"} }

// KeyAlgorithm is the algorithm of certificate keys.
type KeyAlgorithm string

// Values returns the vocabulary.
func (KeyAlgorithm) Values() []string { return []string{"ecdsa", "rsa", "ed25519"} }

// RevocationCheck is how a revoked certificate is noticed.
type RevocationCheck string

// Values returns the vocabulary.
func (RevocationCheck) Values() []string { return []string{"ocsp", "crl"} }

// KeyStorage is where private keys live.
type KeyStorage string

// Values returns the vocabulary.
func (KeyStorage) Values() []string { return []string{"file", "tpm", "hardware-security-module"} }

// EnclaveTechnology is a make of enclave.
type EnclaveTechnology string

// Values returns the vocabulary.
func (EnclaveTechnology) Values() []string { return []string{"intel-sgx", "amd-sev-snp"} }

// Patching says who applies patches.
type Patching string

// Values returns the vocabulary.
func (Patching) Values() []string { return []string{"automated", "manual"} }

func securityKind() kind {
	const (
		noCT        = "certificates come from each organisation's own root and are not in a public CT log"
		noOwnCerts  = "the node's certificates have their own fixed terms"
		noRotation  = "keys change when the operator changes them"
		noShares    = "no shares of keys are made"
		noEnclave   = "no code runs in an enclave"
		noIntrusion = "no traffic or behaviour is watched"
		noScans     = "nothing is scanned or patched"
	)
	toggle := func(path, meaning, why string) Row { return later(path, meaning, why).ruling(off("disabled")) }
	return strict[Security](KindSecurity, "The channel between nodes, their certificates and keys, and the watch over all of it.",
		[]Row{
			fixed("communication.protocol", "protocol between nodes", "every connection between nodes is mutual TLS 1.3 and nothing else", "mtls-1.3"),
			fixed("communication.cipher_suites[]", "TLS suites offered", "exactly these two are offered",
				"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
			fixed("communication.certificate_verification", "how a peer's certificate is looked at", "every chain is verified against its own organisation's roots, every name against the member entry", "strict"),
			toggle("communication.certificate_transparency", "whether certificates are publicly logged", noCT),
			later("certificate_management.authority", "name of the issuing authority", noOwnCerts),
			later("certificate_management.validity_period", "how long a node certificate is good", noOwnCerts),
			later("certificate_management.key_algorithm", "algorithm of its key", noOwnCerts),
			later("certificate_management.key_size", "bits of its key", noOwnCerts),
			later("certificate_management.renewal_threshold", "time before the end at which it is renewed", noOwnCerts),
			later("certificate_management.revocation_check", "how revoked certificates are noticed", "neither OCSP nor lists are asked"),
			later("key_management.storage", "where private keys live", "keys are in the node's keyring, as node.yaml says").
				ruling(Ruling{Value: "file", Status: Honoured, Why: "keys are files sealed to the keyring's passphrase"},
					never("hardware-security-module", "a hardware security module is the real thing or nothing; sealed key files don't stand in for it")),
			later("key_management.rotation_period", "age at which keys are replaced", noRotation),
			toggle("key_management.backup", "whether keys can be got back", noShares),
			later("key_management.recovery_threshold", "shares needed to get a key back", noShares),
			later("key_management.recovery_shares", "shares made of a key", noShares),
			gate(later("secure_enclaves.enabled", "whether code runs in enclaves", noEnclave)),
			later("secure_enclaves.technology", "which make", noEnclave).
				ruling(never("intel-sgx", "an SGX enclave is the real thing or nothing; a sandboxed process doesn't stand in for it")),
			toggle("secure_enclaves.attestation", "whether the enclave proves itself", noEnclave),
			toggle("secure_enclaves.code_verification", "whether its code is compared with what was signed", noEnclave),
			toggle("intrusion_detection.network_monitoring", "whether traffic is watched", noIntrusion),
			toggle("intrusion_detection.behavioral_analysis", "whether behaviour is watched", noIntrusion),
			toggle("intrusion_detection.anomaly_detection", "whether the unusual is noticed", noIntrusion),
			later("intrusion_detection.alert_threshold", "least severity that is told", noIntrusion),
			later("vulnerability_management.scanning_frequency", "how often software is scanned", noScans),
			later("vulnerability_management.patch_management", "who applies patches", noScans),
			toggle("vulnerability_management.risk_assessment", "whether findings are graded", noScans),
			later("vulnerability_management.remediation_sla.critical", "time to mend a critical finding", noScans),
			later("vulnerability_management.remediation_sla.high", "time to mend a high finding", noScans),
			later("vulnerability_management.remediation_sla.medium", "time to mend a medium finding", noScans),
			later("vulnerability_management.remediation_sla.low", "time to mend a low finding", noScans),
		},
		[]string{
			"communication.protocol", "communication.cipher_suites", "communication.certificate_verification",
			"certificate_management.validity_period", "certificate_management.renewal_threshold",
			"certificate_management.key_algorithm",
			"key_management.storage",
			"secure_enclaves.enabled",
		},
		checkSecurity)
}

// keySizes returns the sizes a certificate key of an algorithm may have, in
// bits (ECDSA: FIPS 186-5 curves).
func keySizes(a KeyAlgorithm) []Count {
	switch a {
	case "ecdsa":
		return []Count{256, 384, 521}
	case "rsa":
		return []Count{3072, 4096}
	case "ed25519":
		return []Count{256}
	}
	return nil
}

func checkSecurity(c *checker, s *Security) {
	suites := unique[CipherSuite]{c: c, what: "cipher suite"}
	for i, suite := range s.Communication.Suites {
		suites.add(index("communication.cipher_suites", i), suite)
	}

	m := s.Certificates
	if m.Renewal >= m.Validity && m.Validity > 0 {
		c.fail("certificate_management.renewal_threshold", "", "renewal_threshold %s isn't shorter than validity_period %s: every certificate would be renewed at once", m.Renewal, m.Validity)
	}
	if sizes := keySizes(m.Algorithm); m.Size != 0 && len(sizes) > 0 && !slices.Contains(sizes, m.Size) {
		c.fail("certificate_management.key_size", "", "%s keys don't have %d bits; write %s", m.Algorithm, m.Size, join(sizes))
	}

	k := s.Keys
	switch {
	case k.Threshold > 0 && k.Shares == 0:
		c.fail("key_management", "recovery_shares", "recovery_threshold needs recovery_shares; add it")
	case k.Shares > 0 && k.Threshold == 0:
		c.fail("key_management", "recovery_threshold", "recovery_shares needs recovery_threshold; add it")
	case k.Threshold > k.Shares:
		c.fail("key_management.recovery_threshold", "", "recovery_threshold %d is above recovery_shares %d: no key could be got back", k.Threshold, k.Shares)
	case k.Shares > 255:
		c.fail("key_management.recovery_shares", "", "%d shares; 255 is the limit", k.Shares)
	case k.Shares > 1 && k.Threshold == 1:
		c.fail("key_management.recovery_threshold", "", "with recovery_threshold 1 every single share is the key; write 2 or more")
	}

	if s.Enclaves.Enabled && s.Enclaves.Technology == "" {
		c.fail("secure_enclaves", "technology", "enabled enclaves need a technology")
	}

	sla := s.Vulnerabilities.SLA
	limits := []struct {
		name string
		time strictyaml.Duration
	}{{"critical", sla.Critical}, {"high", sla.High}, {"medium", sla.Medium}, {"low", sla.Low}}
	for i, worse := range limits {
		for _, better := range limits[i+1:] {
			if worse.time != 0 && better.time != 0 && worse.time > better.time {
				c.fail("vulnerability_management.remediation_sla."+worse.name, "", "%s findings get %s, more than the %s of %s ones", worse.name, worse.time, better.time, better.name)
				break
			}
		}
	}
}
