package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// nearest returns the candidate a typing mistake was probably meant to be, ""
// when none is near.
func nearest(word string, candidates []string) string {
	if len(word) > 128 {
		return ""
	}
	best, at := "", 1+max(1, len(word)/3)
	for _, candidate := range candidates {
		if d := distance(word, candidate); d > 0 && d < at {
			best, at = candidate, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove, change or swap with
// their neighbour that makes b of a (Damerau's optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(last[j]+1, row[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

func appendNew[T comparable](list []T, x T) []T {
	if slices.Contains(list, x) {
		return list
	}
	return append(list, x)
}

func names[T ~string](list []T) []string {
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = string(x)
	}
	return out
}

// join lists values for people: "a, b or c".
func join[T any](list []T) string {
	words := make([]string, len(list))
	for i, x := range list {
		words[i] = fmt.Sprint(x)
	}
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
