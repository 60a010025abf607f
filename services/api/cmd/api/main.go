// Command api: see package cmd and --help.
package main

import (
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/api/cmd"
)

func main() {
	service.UseMemory()
	service.Main(cmd.Program())
}
