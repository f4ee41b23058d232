// Package ui is the node's local API: HTTP and JSON over a unix socket, and its Go client.
//
// Its three nouns: the [Server] answers for one node; the [Client] is what commands and programs call; a [Problem] is
// how either says that something could not be done, with a code that a program can tell apart.
//
// It promises: whatever the command line can do goes through this API; the caller is the uid that the kernel names
// for the socket's other end, never a name that the caller gives; an answer shows what this organisation may see, not
// what the federation knows.
package ui
