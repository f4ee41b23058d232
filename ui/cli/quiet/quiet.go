// Package quiet keeps what libraries log while they are initialised off the commands' standard error.
//
// The metrics library reads the kernel's pressure figures when a program starts, and logs a line where the kernel has none,
// as RHEL's has by default: every command would print it. Go initialises packages that are ready in the order of their
// import paths (go.dev/ref/spec#Program_initialization), so that this one, which needs nothing but the standard log, comes
// before those of github.com that log to it.
//
// Its nouns are none but the standard logger; it promises that [End] puts that back as it was.
package quiet

import (
	"io"
	"log"
)

var before = func() io.Writer {
	w := log.Writer()
	log.SetOutput(io.Discard)
	return w
}()

// End lets the standard logger speak again.
func End() { log.SetOutput(before) }
