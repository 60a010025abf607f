// Command settingsdoc prints docs/configuration.md from the programs' command lines.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/tagstream/tagstream/pkg/service"
	api "github.com/tagstream/tagstream/services/api/cmd"
	indexer "github.com/tagstream/tagstream/services/indexer/cmd"
	ingest "github.com/tagstream/tagstream/services/ingest/cmd"
	standalone "github.com/tagstream/tagstream/services/standalone/cmd"
)

func main() {
	w := bufio.NewWriter(os.Stdout)
	fmt.Fprint(w, `# Configuration

Generated from `+"`pkg/service/settings.go`"+` by `+"`make generate`"+`; do not edit.

Every setting is an environment variable and a flag: `+"`TAGSTREAM_API_LISTEN`"+` is `+"`--api-listen`"+`. The
flag wins. An unknown `+"`TAGSTREAM_`"+` variable or a bad value stops start-up with one line and exit
code 2. A program ignores settings of other programs, so one environment can serve all.

`)
	programs := []service.Program{ingest.Program(), indexer.Program(), api.Program(), standalone.Program()}
	for _, f := range service.Settings() {
		def := ""
		if f.Default != "" && f.Name != "ops-listen" {
			def = ". Default: `" + strings.ReplaceAll(f.Default, ",", ", ") + "`"
		}
		var read []string
		for _, p := range programs {
			if p.Reads(service.Variable(f.Name)) {
				read = append(read, p.Name)
			}
		}
		fmt.Fprintf(w, "- `%s` (%s): %s%s\n", service.Variable(f.Name), strings.Join(read, ", "), f.Help, def)
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "settingsdoc:", err)
		os.Exit(1)
	}
}
