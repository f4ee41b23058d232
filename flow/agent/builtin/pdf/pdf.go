// Package pdf reads the text of PDF files (ISO 32000-1) that may be hostile or damaged. Its nouns are the file, a set of
// numbered objects; the page, a program of operators that draws; and the font, which says what the drawn codes mean.
// It promises bounded time, memory and recursion (limits below), no panics, and text in drawing order with spaces and
// line ends where the page shows gaps. It doesn't believe the cross-reference table: it scans for objects, the last
// definition of a number in force, so that a file whose table lies reads the same as its body.
package pdf

import (
	"bytes"
	"context"
	"fmt"
	"strings"
)

// Limits of one file. Beyond them Text returns TooLarge.
const (
	MaxPages    = 5000
	MaxObjects  = 500_000
	MaxElements = 3_000_000 // of arrays and dictionaries outside page programs, all together
	MaxInflated = 128 << 20 // bytes of all streams that are used, before and after their filters
	MaxNesting  = 64        // arrays and dictionaries, page tree levels
	MaxForms    = 12        // forms drawn within forms
	MaxOps      = 20_000_000
	MaxMappings = 1_000_000 // codes with a text or a width, of all fonts together
	maxOperands = 100_000   // elements of one operator's operands
)

// What work costs in operators, so that MaxOps bounds it: streams that are unpacked, fonts that are parsed.
const (
	opsPerStream = 200
	opsPerFont   = 1000
)

// A Problem is why a file can't be read; a sentinel for errors.Is.
type Problem string

// The problems a caller can tell apart.
const (
	Encrypted Problem = "the file is encrypted"
	TooLarge  Problem = "the file is beyond the limits"
	Damaged   Problem = "the file is damaged"
)

// Error returns the problem in words.
func (p Problem) Error() string { return string(p) }

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", Damaged, fmt.Sprintf(format, args...))
}

func tooLarge(format string, args ...any) error {
	return fmt.Errorf("%w: %s", TooLarge, fmt.Sprintf(format, args...))
}

// Text returns the text of data and its number of pages, pages separated by a form feed. Codes that a font gives no
// meaning come out as U+FFFD. At most maxText bytes are returned; more is TooLarge. Errors wrap a Problem or are ctx's.
func Text(ctx context.Context, data []byte, maxText int) (string, int, error) {
	return newFile(ctx, data).text(maxText)
}

// newFile returns a file with the budgets that the limits allow.
func newFile(ctx context.Context, data []byte) *file {
	return &file{ctx: ctx, data: data, objects: map[int]placed{}, inflated: MaxInflated, elements: MaxElements, ops: MaxOps, mappings: MaxMappings}
}

func (f *file) text(maxText int) (string, int, error) {
	// Readers look for the end marker in the last KiB; some producers pad. Without one the file was cut.
	if tail := f.data[max(0, len(f.data)-4096):]; !bytes.Contains(tail, []byte("%%EOF")) {
		return "", 0, damaged("no %%%%EOF at its end, it was cut off")
	}
	if err := f.scan(); err != nil {
		return "", 0, err
	}
	pages, err := f.pages()
	if err != nil {
		return "", 0, err
	}
	d := &drawing{file: f, fonts: map[int]*font{}, maxText: maxText}
	for i, p := range pages {
		if err := f.ctx.Err(); err != nil {
			return "", 0, err
		}
		if i > 0 {
			d.out.WriteByte('\f')
		}
		if err := d.page(p); err != nil {
			return "", 0, fmt.Errorf("page %d: %w", i+1, err)
		}
	}
	return strings.ToValidUTF8(d.out.String(), "\ufffd"), len(pages), nil
}
