package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// exampleWait bounds the wait for an example's output; the examples poll every second.
const exampleWait = 30 * time.Second

// TestFollowingExamples runs the examples in docs/api.md that follow a list while the list changes:
// each ends up with the posts of the list.
func TestFollowingExamples(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../../../docs/api.md")
	require.NoError(t, err)
	for _, c := range []struct {
		language, file string
		programs       []string
	}{
		{"sh", "follow.sh", []string{"bash", "curl", "jq"}},
		{"python", "follow.py", []string{"python3"}},
		{"js", "follow.mjs", []string{"node"}},
	} {
		t.Run(c.language, func(t *testing.T) {
			t.Parallel()
			for _, program := range c.programs {
				if _, err := exec.LookPath(program); err != nil {
					require.NotEqual(t, "true", os.Getenv("CI"), "%s is needed", program)
					t.Skipf("skipped: %s is not installed", program)
				}
			}
			found := regexp.MustCompile("(?s)\n```"+c.language+"\n(.*?)\n```\n").FindAllStringSubmatch(string(guide), -1)
			require.Len(t, found, 1)
			code := found[0][1]
			require.LessOrEqual(t, strings.Count(code, "\n")+1, 27)

			x := newIndex(t)
			first := x.add(t, "first", t0, "art")
			second := x.add(t, "second", t0.Add(time.Second), "photo")
			s := serve(t, x.open(t))
			file := filepath.Join(t.TempDir(), c.file)
			require.NoError(t, os.WriteFile(file, []byte(strings.Replace(code, "http://127.0.0.1:8080", s.url, 1)), 0o600))
			ctx, cancel := context.WithTimeout(t.Context(), 4*exampleWait)
			defer cancel()
			cmd := exec.CommandContext(ctx, c.programs[0], file)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			defer func() { _ = cmd.Wait() }()
			defer cancel()
			lines := make(chan string)
			go func() {
				defer close(lines)
				for in := bufio.NewScanner(out); in.Scan(); {
					select {
					case lines <- in.Text():
					case <-ctx.Done():
						return
					}
				}
			}()
			var held []string
			await := func(want ...string) {
				t.Helper()
				late := time.After(exampleWait)
				slices.Sort(want)
				for !slices.Equal(want, held) {
					select {
					case line, ok := <-lines:
						require.True(t, ok, "the example ended with %v instead of %v", held, want)
						op, uri, _ := strings.Cut(line, " ")
						switch {
						case op == "+" && !slices.Contains(held, uri):
							held = append(held, uri)
						case op == "-":
							held = slices.DeleteFunc(held, func(u string) bool { return u == uri })
						case op != "+":
							held = nil
							require.NoError(t, json.Unmarshal([]byte(line), &held))
						}
						slices.Sort(held)
					case <-late:
						require.Equal(t, want, held)
					}
				}
			}
			await(first, second)
			late := x.add(t, "late", t0.Add(-time.Hour), "art")
			x.add(t, "ink", t0, "ink")
			x.remove(t, first)
			await(late, second)
		})
	}
}
