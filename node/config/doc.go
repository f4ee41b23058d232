// Package config reads the configuration files of a federation: the eleven
// reference kinds, each recognised by its content, typed to the last key and
// checked beyond syntax, and the node's own node.yaml and policy.yaml.
//
// Its nouns are the [Kind] of a file, the [Row] that says of one field what it
// means and what this version does with it, and the [Report] that [Check]
// makes of one file.
//
// It promises that nothing in a file is silently ignored. A key nobody knows,
// a value out of range or a reference to a name that isn't there is an error
// with file, line and column. A field this version doesn't enforce yet is a
// warning by name, and [Report.Appliable] refuses the file by the same name. A
// security mechanism is never replaced by a weaker one.
package config
