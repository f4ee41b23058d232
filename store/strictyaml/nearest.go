package strictyaml

// nearest returns the known name that typed most likely meant: at most a third of its letters changed, inserted, left
// out or swapped with their neighbour. It returns "" if none is near.
func nearest(typed string, known []string) string {
	best, bestDistance := "", max(len(typed)/3, 1)+1
	if len(typed) > 64 {
		return ""
	}
	for _, k := range known {
		if d := distance(typed, k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance is the optimal string alignment distance (Damerau–Levenshtein with adjacent transpositions), in bytes.
func distance(a, b string) int {
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	row := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j-1]+cost, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
