//go:build !race

package agent

// sanitized is true of builds whose race detector maps terabytes, which no limit on memory lets it.
const sanitized = false
