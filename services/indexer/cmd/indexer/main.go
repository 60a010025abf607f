// Command indexer: see package cmd and --help.
package main

import (
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/indexer/cmd"
)

func main() { service.Main(cmd.Program()) }
