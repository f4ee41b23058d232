// Package strictyaml decodes YAML into typed Go values and lets nothing pass that the type does not know.
//
// Its three nouns: a document is exactly one YAML document of limited size and depth, without anchors, aliases, merge
// keys or foreign tags; an [Error] says of one place what is wrong there: file, line, column, path, and the nearest
// known key; [Duration] and [Size] are the units of configuration files.
//
// It promises that a typo is an error and not a default, that all errors of a file are reported together, and that no
// input makes it panic or take more than its limits of memory.
package strictyaml
