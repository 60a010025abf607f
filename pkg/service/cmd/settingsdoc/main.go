// Command settingsdoc prints docs/configuration.md from the table of settings.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/tagstream/tagstream/pkg/service"
)

func main() {
	w := bufio.NewWriter(os.Stdout)
	fmt.Fprint(w, `# Configuration

Made from `+"`pkg/service/settings.go`"+` by `+"`make generate`"+`; do not edit.

Every setting is an environment variable and a flag: `+"`TAGSTREAM_API_LISTEN`"+` is `+"`--api-listen`"+`. The flag wins. A
`+"`TAGSTREAM_`"+` variable that is not listed here stops start-up, as does a bad value: one line names it and the exit code is 2.
A program ignores the settings of the others, so one environment can serve all.

| variable | default | read by | meaning |
|---|---|---|---|
`)
	for _, s := range service.Settings {
		def := "none"
		if s.Name == "OPS_LISTEN" {
			def = "by program"
		}
		if s.Default != "" {
			def = "`" + strings.ReplaceAll(s.Default, ",", ", ") + "`"
		}
		fmt.Fprintf(w, "| `%s%s` | %s | %s | %s |\n", service.Prefix, s.Name, def, strings.Join(s.Programs, ", "), s.Usage)
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "settingsdoc:", err)
		os.Exit(1)
	}
}
