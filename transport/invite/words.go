package invite

import (
	_ "embed"
	"fmt"
	"strings"

	"golang.org/x/crypto/scrypt"
)

// wordList is the English list of BIP 39: 2048 words of 3 to 8 letters, no two of which begin with the same four.
//
//go:embed words.txt
var wordList string

// Cost of a derivation: 32 MiB, and about 0.1 s on a server.
const (
	scryptN     = 1 << 15
	scryptR     = 8
	scryptP     = 1
	wordCount   = 3
	bitsPerWord = 11
)

// Words derives the three verification words from everything that the token says: 33 bits by scrypt (RFC 7914). They
// are slow to derive, so that who would replace the token by one of a federation of its own can't try for ones that
// have the same.
func (t *Token) Words() (string, error) {
	key, err := scrypt.Key(t.body(), []byte("fednode/verification-words/v1"), scryptN, scryptR, scryptP, 5)
	if err != nil {
		return "", fmt.Errorf("verification words: %w", err)
	}
	bits := uint64(0)
	for _, b := range key {
		bits = bits<<8 | uint64(b)
	}
	list := strings.Fields(wordList)
	words := make([]string, wordCount)
	for i := range words {
		words[i] = list[bits>>(i*bitsPerWord)&(1<<bitsPerWord-1)]
	}
	return strings.Join(words, " "), nil
}
