// Package script runs the command line as its users do: every command, in scripts, against nodes that are processes of
// their own.
//
// Its three nouns: a script in testdata, which is a txtar archive in the language of testscript; the commands that are
// added to that language in script_test.go, to found federations and to start, stop and crash their nodes; the exit code
// that each command line must end with. It promises that what a script shows is what an operator sees.
package script
