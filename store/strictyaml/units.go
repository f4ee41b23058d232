package strictyaml

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A Duration is written as a whole number with a unit: s, m, h, d (24 h) or y (365 d). A bare number is seconds.
type Duration time.Duration

// A unit of durations or sizes.
type unit struct {
	name string
	of   int64
}

// durations are the units of Duration, largest first.
var durations = [...]unit{{"y", int64(365 * 24 * time.Hour)}, {"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"m", int64(time.Minute)}, {"s", int64(time.Second)}}

// sizes are the units of Size, largest first: binary multiples, as operators of memory and disks mean them.
var sizes = [...]unit{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"KB", 1 << 10}, {"B", 1}}

// quantity parses a whole number and one of the units; bare is what a number without unit counts.
func quantity(s string, units []unit, bare int64) (int64, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	of := int64(0)
	if digits == s {
		of = bare
	}
	for _, u := range units {
		if s[len(digits):] == u.name {
			of = u.of
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || of == 0 || digits[0] == '+' {
		var names []string
		for _, u := range units {
			names = append(names, u.name)
		}
		return 0, fmt.Errorf("%q, want a whole number and a unit of %s", s, strings.Join(names, ", "))
	}
	if int64(n) > math.MaxInt64/of {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return int64(n) * of, nil
}

// spell writes n with the largest unit that divides it.
func spell(n int64, units []unit) string {
	if n == 0 {
		return "0" + units[len(units)-1].name
	}
	for _, u := range units {
		if n%u.of == 0 {
			return strconv.FormatInt(n/u.of, 10) + u.name
		}
	}
	return ""
}

// ParseDuration parses the text form of a Duration.
func ParseDuration(s string) (Duration, error) {
	n, err := quantity(s, durations[:], int64(time.Second))
	return Duration(n), err
}

// String writes the duration with the largest unit that divides it; what no unit divides is written as Go does.
func (d Duration) String() string {
	if s := spell(int64(d), durations[:]); s != "" {
		return s
	}
	return time.Duration(d).String()
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) (err error) {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("%s, want a duration such as 300s, 24h or 90d", given(n))
	}
	*d, err = ParseDuration(n.Value)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

// MarshalJSON writes the text form.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads the text form.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("duration: %w", err)
	}
	v, err := ParseDuration(s)
	*d = v
	return err
}

// A Size is a number of bytes, written as a whole number with a unit: B, KB, MB, GB or TB, binary multiples. A bare
// number is bytes.
type Size int64

// ParseSize parses the text form of a Size.
func ParseSize(s string) (Size, error) {
	n, err := quantity(s, sizes[:], 1)
	return Size(n), err
}

func (s Size) String() string { return spell(int64(s), sizes[:]) }

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(n *yaml.Node) (err error) {
	if n.Kind != yaml.ScalarNode {
		return fmt.Errorf("%s, want a size such as 10MB or 32GB", given(n))
	}
	*s, err = ParseSize(n.Value)
	return err
}

// MarshalYAML implements yaml.Marshaler.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

// MarshalJSON writes the text form.
func (s Size) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON reads the text form.
func (s *Size) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return fmt.Errorf("size: %w", err)
	}
	v, err := ParseSize(text)
	*s = v
	return err
}
