// Package process measures the product as its operators meet it: the static binary, in processes of its own.
//
// Its three nouns: the binary, built as make build does; a node, which runs on a data directory of a founded federation;
// a figure, of which the benchmarks report the median and the best, since the machine is seldom theirs alone.
//
// It promises that nothing is measured in the benchmark's own process but the waiting.
package process
