package config

import (
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Leaf types know their own syntax. The walker calls problem on every value a
// file holds; the description becomes the "value" column of CONFIG.md.
type scalar interface {
	problem() string // "" when the value is well formed
	describe() string
}

// enumerated is a leaf type with a closed vocabulary.
type enumerated interface{ Values() []string }

// pattern returns a regular expression that is compiled when it is first asked for: every command and every agent's worker
// starts with this package, and few of them read configuration.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// OrgID names an organisation: lower-case letters, digits and hyphens, at most
// 63 characters, as in the member entry.
type OrgID string

var orgIDPattern = pattern(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (o OrgID) describe() string { return "organisation id" }

func (o OrgID) problem() string {
	if orgIDPattern().MatchString(string(o)) {
		return ""
	}
	return fmt.Sprintf("%q is not an organisation id; use lower-case letters, digits and hyphens, 63 at most", string(o))
}

// Label is a short machine name chosen by the operator: a rule, a region, a
// role, a data category.
type Label string

var labelPattern = pattern(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func (l Label) describe() string { return "name" }

func (l Label) problem() string {
	if labelPattern().MatchString(string(l)) {
		return ""
	}
	return fmt.Sprintf("%q is not a name; use letters, digits, '-', '_' and '.', 128 at most", string(l))
}

// Text is for people: one to 1,000 characters, no control characters but line
// breaks.
type Text string

func (t Text) describe() string { return "text" }

func (t Text) problem() string {
	switch {
	case strings.TrimSpace(string(t)) == "":
		return "the text is empty; write one or leave the key out"
	case len(t) > 1000:
		return fmt.Sprintf("the text has %d bytes; 1000 is the limit", len(t))
	case strings.ContainsFunc(string(t), func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }):
		return "the text holds control characters; remove them"
	}
	return ""
}

// HTTPS is an absolute https URL without credentials or fragment.
type HTTPS string

func (u HTTPS) describe() string { return "https URL" }

func (u HTTPS) problem() string {
	p, err := url.Parse(string(u))
	switch {
	case err != nil || len(u) > 2048:
		return fmt.Sprintf("%.80q is not a URL; write one such as https://host.example/path", string(u))
	case p.Scheme != "https":
		return fmt.Sprintf("%.80q is not an https URL; write https://…", string(u))
	case p.User != nil:
		// The value may hold a password: it isn't repeated.
		return "the URL holds credentials; remove the part before '@'"
	case p.Fragment != "":
		return fmt.Sprintf("%.80q has a fragment; remove the part from '#'", string(u))
	case !validHost(p.Hostname()):
		return fmt.Sprintf("%.80q names no valid host", string(u))
	}
	if port := p.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Sprintf("%.80q has port %s; ports are 1 to 65535", string(u), port)
		}
	}
	return ""
}

// Domain is a DNS name of at least two labels, lower case.
type Domain string

func (d Domain) describe() string { return "DNS name" }

func (d Domain) problem() string {
	if strings.Contains(string(d), ".") && dnsPattern().MatchString(string(d)) && len(d) <= 253 {
		return ""
	}
	return fmt.Sprintf("%.80q is not a domain; write one such as org.example", string(d))
}

// Host is a DNS name or an IP address, without a port.
type Host string

var dnsPattern = pattern(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)

func validHost(h string) bool {
	if net.ParseIP(h) != nil {
		return true
	}
	return len(h) <= 253 && dnsPattern().MatchString(strings.ToLower(h))
}

func (h Host) describe() string { return "host name or IP address" }

func (h Host) problem() string {
	if validHost(string(h)) {
		return ""
	}
	return fmt.Sprintf("%.80q is neither a host name nor an IP address", string(h))
}

// Source is one side of a firewall rule: an organisation, an IP address or a
// prefix in CIDR notation.
type Source string

func (s Source) describe() string { return "organisation id, IP address or prefix (CIDR)" }

func (s Source) problem() string {
	if orgIDPattern().MatchString(string(s)) {
		return ""
	}
	if _, err := netip.ParseAddr(string(s)); err == nil {
		return ""
	}
	p, err := netip.ParsePrefix(string(s))
	if err != nil {
		return fmt.Sprintf("%.80q is neither an organisation id nor an IP address nor a prefix", string(s))
	}
	if p.Masked() != p {
		return fmt.Sprintf("%s has bits outside its prefix; write %s", p, p.Masked())
	}
	return ""
}

// Email is one plain address: no display name, a domain with a dot.
type Email string

func (e Email) describe() string { return "e-mail address" }

func (e Email) problem() string {
	a, err := mail.ParseAddress(string(e))
	if err != nil || a.Address != string(e) || Domain(e[strings.LastIndexByte(string(e), '@')+1:]).problem() != "" {
		return fmt.Sprintf("%.80q is not an e-mail address; write one such as team@org.example", string(e))
	}
	return ""
}

// File is a path on this machine, absolute or relative to the file that names it.
type File string

func (f File) describe() string { return "file path" }

func (f File) problem() string {
	s := string(f)
	if s == "" || len(s) > 4096 || strings.ContainsRune(s, 0) || strings.HasSuffix(s, "/") || path.Clean(s) != s {
		return fmt.Sprintf("%.80q is not a clean file path; write it without '//', '..' or a final '/'", s)
	}
	if s == ".." || strings.HasPrefix(s, "../") {
		return fmt.Sprintf("%.80q leaves the folder of this file; write an absolute path", s)
	}
	return ""
}

// Version is a semantic version, as in "1.4.0".
type Version string

var versionPattern = pattern(`^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z.-]{1,64})?$`)

func (v Version) describe() string { return "version (semver)" }

func (v Version) problem() string {
	if versionPattern().MatchString(string(v)) {
		return ""
	}
	return fmt.Sprintf("%.80q is not a version; write three numbers, such as 1.0.0", string(v))
}

// Port is a TCP or UDP port, 1 to 65535.
type Port int

func (p Port) describe() string { return "port (1 to 65535)" }

func (p Port) problem() string {
	if p < 1 || p > 65535 {
		return fmt.Sprintf("%d is not a port; ports are 1 to 65535", int(p))
	}
	return ""
}

// Count is a whole number of things, 1 to 1,000,000,000.
type Count int

func (n Count) describe() string { return "whole number ≥ 1" }

func (n Count) problem() string {
	if n < 1 || n > 1_000_000_000 {
		return fmt.Sprintf("%d is out of range; write a whole number from 1 to 1000000000", int(n))
	}
	return ""
}

// Days is a whole number of days, 1 to 36,500.
type Days int

func (d Days) describe() string { return "days" }

func (d Days) problem() string {
	if d < 1 || d > 36500 {
		return fmt.Sprintf("%d is not a usable number of days; write 1 to 36500", int(d))
	}
	return ""
}

// Ratio is a share of a whole, 0 to 1.
type Ratio float64

func (r Ratio) describe() string { return "ratio, 0 to 1" }

func (r Ratio) problem() string {
	if !(r >= 0 && r <= 1) { // also refuses NaN
		return fmt.Sprintf("%v is not a ratio; write a number from 0 to 1", float64(r))
	}
	return ""
}

// Positive is a finite number above 0.
type Positive float64

func (p Positive) describe() string { return "number > 0" }

func (p Positive) problem() string {
	if !(p > 0 && p <= 1e12) {
		return fmt.Sprintf("%v is out of range; write a number above 0", float64(p))
	}
	return ""
}

// Deadline is a limit counted from an event, in words: "Within 72 hours of
// discovery".
type Deadline string

var deadlinePattern = pattern(`^[Ww]ithin ([1-9]\d{0,3}) (minutes?|hours?|days?) of (discovery|detection|classification|containment)$`)

func (d Deadline) describe() string {
	return "\"Within N minutes|hours|days of discovery|detection|classification|containment\""
}

func (d Deadline) problem() string {
	if deadlinePattern().MatchString(string(d)) {
		return ""
	}
	return fmt.Sprintf("%.80q is not a deadline; write one such as \"Within 72 hours of discovery\"", string(d))
}

// After returns the time allowed and the event it is counted from, or zero
// values when d is malformed.
func (d Deadline) After() (time.Duration, string) {
	m := deadlinePattern().FindStringSubmatch(string(d))
	if m == nil {
		return 0, ""
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		return 0, ""
	}
	unit := time.Minute
	switch m[2][0] {
	case 'h':
		unit = time.Hour
	case 'd':
		unit = 24 * time.Hour
	}
	return time.Duration(n) * unit, m[3]
}

// MetricName is a name in the Prometheus exposition format.
type MetricName string

var metricPattern = pattern(`^[a-zA-Z_][a-zA-Z0-9_]{0,127}$`)

func (m MetricName) describe() string { return "metric name" }

func (m MetricName) problem() string {
	if metricPattern().MatchString(string(m)) {
		return ""
	}
	return fmt.Sprintf("%.80q is not a metric name; use letters, digits and '_', not beginning with a digit", string(m))
}

// Toggle is "enabled" or "disabled".
type Toggle string

// Values returns the vocabulary.
func (Toggle) Values() []string { return []string{"enabled", "disabled"} }

// Severity ranks incidents, alerts and vulnerabilities.
type Severity string

// Values returns the vocabulary, worst first.
func (Severity) Values() []string { return []string{"critical", "high", "medium", "low"} }

// DefaultPolicy is the decision where no rule applies.
type DefaultPolicy string

// Values returns the only default there is: fednode denies what nothing allows.
func (DefaultPolicy) Values() []string { return []string{"deny-all"} }
