//go:build amd64

package agent

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestI386Calls runs a 64-bit program that calls exit(0) by the i386 ABI, whose numbers the names of the filter do not
// mean. If it had its way, it would end well, without an answer.
func TestI386Calls(t *testing.T) {
	code := []byte{0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80} // mov eax, 1; xor ebx, ebx; int 0x80
	const base, size = 0x400000, 64 + 56
	le := binary.LittleEndian
	elf := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	elf = le.AppendUint16(elf, 2)  // executable
	elf = le.AppendUint16(elf, 62) // x86-64
	elf = le.AppendUint32(elf, 1)
	for _, v := range []uint64{base + size, 64, 0} { // entry, program headers, section headers
		elf = le.AppendUint64(elf, v)
	}
	elf = le.AppendUint32(elf, 0)
	for _, v := range []uint16{64, 56, 1, 0, 0, 0} {
		elf = le.AppendUint16(elf, v)
	}
	elf = le.AppendUint32(elf, 1) // load
	elf = le.AppendUint32(elf, 5) // readable, executable
	for _, v := range []uint64{0, base, base, uint64(size + len(code)), uint64(size + len(code)), 0x1000} {
		elf = le.AppendUint64(elf, v)
	}
	file := filepath.Join(t.TempDir(), "exit")
	if err := os.WriteFile(file, append(elf, code...), 0o755); err != nil {
		t.Fatal(err)
	}
	s, _ := newTestSet(t, map[string]Config{"x": {Kind: "exec", Command: []string{file}, Outputs: []string{"answer"}}})
	_, err := get(t, s, "x").Run(t.Context(), Task{})
	// A kernel without the i386 ABI ends it by SIGSEGV.
	if text := wantKind(t, err, KindCrashed); !strings.Contains(text, "bad system call") && !strings.Contains(text, "segmentation fault") {
		t.Error(text)
	}
}
