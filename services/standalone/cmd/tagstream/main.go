// Command tagstream is the whole pipeline in one process: see package cmd and --help.
package main

import (
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/standalone/cmd"
)

func main() { service.Main(cmd.Program()) }
