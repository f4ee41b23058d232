package member

import (
	"fmt"
	"time"

	"fednode/store/strictyaml"
)

// A Charter says who approves what. It is part of the genesis, and changed by an entry that it itself governs.
type Charter struct {
	Version   int              `yaml:"version" json:"version" required:"true"`
	Sequence  int64            `yaml:"sequence" json:"sequence"` // default 1; a later charter has a higher one, so that no old approval counts again
	Approvals CharterApprovals `yaml:"approvals" json:"approvals" required:"true"`
	Freshness Freshness        `yaml:"freshness" json:"freshness"`
}

// CharterApprovals are the rules by which entries come into effect: "quorum" is [Quorum] of the members in force, "all"
// is every one of them, "self" is the organisation that the entry is about.
type CharterApprovals struct {
	Member       string `yaml:"member" json:"member" oneof:"quorum,all" required:"true"`
	RecordUpdate string `yaml:"record_update" json:"record_update" oneof:"self,quorum,all" required:"true"`
	Charter      string `yaml:"charter" json:"charter" oneof:"quorum,all" required:"true"`
}

// Freshness is how old the governance checkpoint may be before a node takes no new work, and before it raises an alarm.
type Freshness struct {
	Limit strictyaml.Duration `yaml:"limit" json:"limit"`
	Alarm strictyaml.Duration `yaml:"alarm" json:"alarm"`
}

// DefaultCharter is what a federation begins with: a quorum admits members and changes the charter, and an
// organisation renews its own record by itself.
func DefaultCharter() Charter {
	return Charter{Version: 1, Sequence: 1, Approvals: CharterApprovals{Member: "quorum", RecordUpdate: "self", Charter: "quorum"},
		Freshness: Freshness{Limit: strictyaml.Duration(7 * 24 * time.Hour), Alarm: strictyaml.Duration(24 * time.Hour)}}
}

// ParseCharter reads a charter.yaml.
func ParseCharter(file string, data []byte) (Charter, error) {
	c := DefaultCharter()
	if err := strictyaml.Decode(file, data, &c); err != nil {
		return Charter{}, err
	}
	if err := c.check(); err != nil {
		return Charter{}, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func (c Charter) check() error {
	if c.Version != 1 {
		return fmt.Errorf("charter version %d; this fednode knows 1", c.Version)
	}
	if c.Sequence < 1 {
		return fmt.Errorf("charter sequence %d; it begins at 1", c.Sequence)
	}
	for _, r := range []string{c.Approvals.Member, c.Approvals.RecordUpdate, c.Approvals.Charter} {
		switch r {
		case "quorum", "all":
		case "self":
			if r == c.Approvals.Member || r == c.Approvals.Charter {
				return fmt.Errorf("charter: only record_update can be %q", r)
			}
		default:
			return fmt.Errorf("charter: rule %.20q; use quorum, all or (for record_update) self", r)
		}
	}
	if c.Freshness.Limit < strictyaml.Duration(time.Hour) || c.Freshness.Alarm <= 0 || c.Freshness.Alarm > c.Freshness.Limit {
		return fmt.Errorf("charter: freshness limit %v and alarm %v: a limit of at least 1h, and an alarm before it", c.Freshness.Limit, c.Freshness.Alarm)
	}
	return nil
}

// needed returns how many approvals of n members a rule asks for.
func needed(rule string, n int) int {
	if rule == "all" {
		return n
	}
	return Quorum(n)
}
