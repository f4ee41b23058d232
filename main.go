// Fednode makes this server a member of a federation. This file holds nothing but main; the map is in package node.
package main

import (
	"os"

	"fednode/ui/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
