// Package node is the composition root: it wires one organisation's appliance out of the other packages and runs it.
//
// Its three nouns: a [Site] is an opened data directory, with its configuration, keys and certificates; a [Node] is a
// site that runs; an [Archived] is what a site hands out for others to verify.
//
// It promises: everything is wired explicitly, bottom-up, in [New]; [Node.Run] is one group of goroutines, stopped
// top-down; nothing that concerns two organisations is decided here, only put together.
package node

import (
	"runtime/debug"
	"strings"
)

// version is set by the linker.
var version = ""

// Version returns the version that this binary was built as.
func Version() string {
	if version != "" {
		return strings.TrimPrefix(version, "v")
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return strings.TrimPrefix(info.Main.Version, "v")
	}
	return "devel"
}
