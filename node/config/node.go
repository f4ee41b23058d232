package config

import (
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"fednode/flow/agent"
	"fednode/hsm"
	"fednode/store/strictyaml"
)

// Node is node.yaml, the configuration of one organisation's node. Everything
// but organization.id has a default.
type Node struct {
	Organization NodeOrganization        `yaml:"organization"`
	Instance     Label                   `yaml:"instance"`  // default "<organization.id>-1"
	Listen       Address                 `yaml:"listen"`    // UDP and TCP; default ":443"
	Advertise    []Address               `yaml:"advertise"` // where peers reach it; default the domain with the port of listen
	Keys         NodeKeys                `yaml:"keys"`
	Agents       map[string]agent.Config `yaml:"agents"` // on top of the default ones; see package flow/agent
	Limits       NodeLimits              `yaml:"limits"`
	Log          NodeLog                 `yaml:"log"`
	Monitor      NodeMonitor             `yaml:"monitor"`
}

// NodeOrganization is the organisation as its member record names it.
type NodeOrganization struct {
	ID           OrgID  `yaml:"id"`
	Name         Text   `yaml:"name"`         // default the id
	Domain       Domain `yaml:"domain"`       // default none
	Jurisdiction Label  `yaml:"jurisdiction"` // default none: rules that look at it don't match
}

// NodeKeys says where the keyring's passphrase is read at start. With none of
// them it is asked for.
type NodeKeys struct {
	Passphrase  PassphraseSource `yaml:"passphrase"`
	Unprotected bool             `yaml:"unprotected"` // keys lie on disk without a passphrase
}

// PassphraseSource names exactly one place.
type PassphraseSource struct {
	File       File         `yaml:"file"`       // relative to the folder of node.yaml
	Env        EnvName      `yaml:"env"`        // taken out of the environment when read
	Credential CredentialID `yaml:"credential"` // systemd, $CREDENTIALS_DIRECTORY
}

// NodeLimits bound what peers can make the node spend. What isn't given has the
// transport's default.
type NodeLimits struct {
	Requests          Count               `yaml:"requests"`            // handled at once, all peers together
	RequestsPerPeer   Count               `yaml:"requests_per_peer"`   // handled at once for one peer
	RequestsPerSecond Positive            `yaml:"requests_per_second"` // of one peer, on average
	BytesPerSecond    strictyaml.Size     `yaml:"bytes_per_second"`    // of envelopes of one peer
	ArtifactSize      strictyaml.Size     `yaml:"artifact_size"`       // largest artifact fetched
	CallTimeout       strictyaml.Duration `yaml:"call_timeout"`
	Memory            strictyaml.Size     `yaml:"memory"` // for no-storage artifacts; default 512MB
	Agents            Count               `yaml:"agents"` // agents running at once; default 4
}

// NodeLog is what the node tells its operator.
type NodeLog struct {
	Level  LogLevel  `yaml:"level"`  // default info
	Format LogFormat `yaml:"format"` // default text
}

// NodeMonitor is the plain HTTP listener of metrics and health; without an
// address there is none.
type NodeMonitor struct {
	Listen Address `yaml:"listen"`
}

// LogLevel is the least level that is logged.
type LogLevel string

// Values returns the vocabulary.
func (LogLevel) Values() []string { return []string{"debug", "info", "warn", "error"} }

// Slog is the level as package slog has it.
func (l LogLevel) Slog() slog.Level {
	switch l {
	case "debug":
		return slog.LevelDebug
	case "warn":
		return slog.LevelWarn
	case "error":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// LogFormat is how log lines are written.
type LogFormat string

// Values returns the vocabulary.
func (LogFormat) Values() []string { return []string{"text", "json"} }

// Address is "host:port"; the host may be empty where the node listens.
type Address string

func (Address) describe() string { return "host:port" }

func (a Address) problem() string {
	host, port, err := net.SplitHostPort(string(a))
	if err != nil {
		return fmt.Sprintf("%.80q is not an address; write host:port, such as fed.org.example:443", string(a))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && host == "" {
		return fmt.Sprintf("%.80q has no usable port; ports are 1 to 65535", string(a))
	}
	if host != "" && !validHost(host) {
		return fmt.Sprintf("%.80q names no valid host", string(a))
	}
	return ""
}

// EnvName is the name of an environment variable.
type EnvName string

var envPattern = pattern(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

func (EnvName) describe() string { return "name of an environment variable" }

func (e EnvName) problem() string {
	if envPattern().MatchString(string(e)) {
		return ""
	}
	// The value isn't repeated: it may be the passphrase itself, written in the
	// wrong place.
	return "this is not the name of an environment variable; use letters, digits and '_'"
}

// CredentialID is the name of a systemd credential.
type CredentialID string

func (CredentialID) describe() string { return "name of a systemd credential" }

func (c CredentialID) problem() string {
	if Label(c).problem() == "" {
		return ""
	}
	return "this is not the name of a credential; use letters, digits, '-', '_' and '.'"
}

func (n *Node) check(c *checker) {
	p := n.Keys.Passphrase
	places := 0
	for _, given := range []bool{p.File != "", p.Env != "", p.Credential != "", n.Keys.Unprotected} {
		if given {
			places++
		}
	}
	if places > 1 {
		c.fail("keys", "", "the passphrase has one place: file, env, credential, or unprotected: true without any")
	}
	reached := unique[Address]{c: c, what: "address"}
	for i, a := range n.Advertise {
		at := index("advertise", i)
		reached.add(at, a)
		if host, port, err := net.SplitHostPort(string(a)); err == nil && (host == "" || port == "0") {
			c.fail(at, "", "%s can't be reached by a peer; write host and port", a)
		}
	}
	l := n.Limits
	if l.Requests > 0 && l.RequestsPerPeer > l.Requests {
		c.fail("limits.requests_per_peer", "", "requests_per_peer %d is above requests %d", l.RequestsPerPeer, l.Requests)
	}
	if n.Monitor.Listen != "" && n.Monitor.Listen == n.Listen {
		c.fail("monitor.listen", "", "%s is the federation's address already", n.Listen)
	}
}

func (n *Node) setDefaults() {
	o := &n.Organization
	if o.Name == "" {
		o.Name = Text(o.ID)
	}
	if n.Instance == "" {
		n.Instance = Label(string(o.ID) + "-1")
	}
	if n.Listen == "" {
		n.Listen = ":443"
	}
	if len(n.Advertise) == 0 && o.Domain != "" {
		_, port, _ := strings.Cut(string(n.Listen[strings.LastIndexByte(string(n.Listen), ':'):]), ":")
		if port != "0" {
			n.Advertise = []Address{Address(net.JoinHostPort(string(o.Domain), port))}
		}
	}
	if n.Limits.Memory == 0 {
		n.Limits.Memory = 512 << 20
	}
	if n.Limits.Agents == 0 {
		n.Limits.Agents = 4
	}
	if n.Log.Level == "" {
		n.Log.Level = "info"
	}
	if n.Log.Format == "" {
		n.Log.Format = "text"
	}
}

// Source returns where the passphrase is read; dir is the folder of node.yaml.
// It is false when none is named, and the passphrase has to be asked for.
func (k NodeKeys) Source(dir string) (hsm.Passphrase, bool) {
	p := k.Passphrase
	switch {
	case k.Unprotected:
		return hsm.Unprotected(), true
	case p.File != "":
		file := string(p.File)
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		return hsm.PassphraseFile(file), true
	case p.Env != "":
		return hsm.PassphraseEnv(string(p.Env)), true
	case p.Credential != "":
		return hsm.PassphraseCredential(string(p.Credential)), true
	}
	return hsm.Passphrase{}, false
}
