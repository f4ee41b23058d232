package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// A screen shows one block of text after the other: in place of the one before on a terminal that can, else below it.
type screen struct {
	out   io.Writer
	size  func() (width, height int) // of the terminal; nil if there is none
	drawn bool
}

func newScreen(a *app) *screen {
	s := &screen{out: a.out}
	f, ok := a.out.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		s.size = func() (int, int) {
			w, h, err := term.GetSize(int(f.Fd()))
			if err != nil {
				return 0, 0
			}
			return w, h
		}
	}
	return s
}

// line writes a value as one line of JSON.
func (s *screen) line(v any) {
	e := json.NewEncoder(s.out)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the error is that nobody reads it; the next block will not be read either
}

// show writes a block. On a terminal the first clears it, and each begins in its upper left corner, overwrites what was
// there line by line, so that nothing flickers, and is cut to the terminal's size.
func (s *screen) show(block func(w io.Writer)) {
	var b bytes.Buffer
	block(&b)
	if s.size == nil {
		if s.drawn {
			_, _ = io.WriteString(s.out, "\n")
		}
		s.drawn = true
		_, _ = s.out.Write(b.Bytes())
		return
	}
	width, height := s.size()
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if height > 1 && len(lines) > height-1 {
		lines = append(lines[:height-2], "… (the terminal is too low for the rest)")
	}
	var out strings.Builder
	if !s.drawn {
		out.WriteString("\x1b[2J")
	}
	s.drawn = true
	out.WriteString("\x1b[H")
	for _, l := range lines {
		out.WriteString(cut(l, width) + "\x1b[K\n")
	}
	out.WriteString("\x1b[J")
	_, _ = io.WriteString(s.out, out.String())
}

// cut shortens a line to width characters, colours not counted; 0 is no limit.
func cut(line string, width int) string {
	if width <= 0 {
		return line
	}
	shown, colour := 0, false
	for i, r := range line {
		switch {
		case r == '\x1b':
			colour = true
		case colour:
			colour = r != 'm'
		case shown == width-1 && len(visible(line[i:])) > 1:
			if strings.ContainsRune(line, '\x1b') {
				return line[:i] + "…\x1b[0m"
			}
			return line[:i] + "…"
		default:
			shown++
		}
	}
	return line
}

// visible returns the characters of a text without its colours.
func visible(s string) (out []rune) {
	colour := false
	for _, r := range s {
		switch {
		case r == '\x1b':
			colour = true
		case colour:
			colour = r != 'm'
		default:
			out = append(out, r)
		}
	}
	return out
}
