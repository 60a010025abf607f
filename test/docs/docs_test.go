// Package docs checks what the documents say against the tree: links, tests and length.
package docs_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// maxWords bounds the total length of docs without the results of the benchmarks: long documents are
// not read.
const maxWords = 12_000

// generated are the generated documents, with lines of any length.
var generated = map[string]bool{"bench.md": true, "configuration.md": true, "metrics.md": true, "report.md": true}

var (
	word     = regexp.MustCompile(`\S*[\p{L}\p{N}]\S*`) // not the lines of tables
	fence    = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	anchor   = regexp.MustCompile(`<a id="([^"]+)">`)
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	named    = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`")
	chosen   = regexp.MustCompile(`'\^Test\(([^)]+)\)`)
	source   = regexp.MustCompile("`([\\w./-]+\\.(?:go|sql|yaml|yml))`")
	defined  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	numbered = regexp.MustCompile(`(?m)^\| (\d\w*) \| `)
	invalid  = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// documents returns every Markdown file that people read, without its code blocks.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			all[path] = fence.ReplaceAllString(string(text), "")
		}
	}
	require.Greater(t, len(all), 10)
	return all
}

// TestLinks follows every link within the repository, to its file and to its heading.
func TestLinks(t *testing.T) {
	t.Parallel()
	all := documents(t)
	targets := map[string]map[string]bool{}
	for path, text := range all {
		targets[path] = map[string]bool{}
		for _, h := range heading.FindAllStringSubmatch(text, -1) {
			slug := invalid.ReplaceAllString(strings.ToLower(h[1]), "")
			targets[path][strings.ReplaceAll(slug, " ", "-")] = true
		}
		for _, a := range anchor.FindAllStringSubmatch(text, -1) {
			targets[path][a[1]] = true
		}
	}
	for path, text := range all {
		for _, l := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(l[1], "://") {
				continue
			}
			file, fragment, _ := strings.Cut(l[1], "#")
			to := path
			if file != "" {
				to = filepath.Join(filepath.Dir(path), file)
				_, err := os.Stat(to)
				require.NoError(t, err, "%s links to %s", path, l[1])
			}
			if fragment != "" {
				require.True(t, targets[to][fragment], "%s links to %s, which has no such heading", path, l[1])
			}
		}
	}
}

// files returns the files of the tree, without those that programs make in it.
func files(t *testing.T) (paths []string) {
	t.Helper()
	made := map[string]bool{".git": true, ".cache": true, "bin": true, "data": true, "node_modules": true}
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && made[d.Name()] {
			return filepath.SkipDir
		}
		paths = append(paths, path)
		return err
	}))
	return paths
}

// TestNamedTests finds every test that a document names.
func TestNamedTests(t *testing.T) {
	t.Parallel()
	exists := map[string]bool{}
	for _, path := range files(t) {
		if strings.HasSuffix(path, "_test.go") {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			for _, f := range defined.FindAllStringSubmatch(string(text), -1) {
				exists[f[1]] = true
			}
		}
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	for _, run := range chosen.FindAllStringSubmatch(string(makefile), -1) {
		for start := range strings.SplitSeq(run[1], "|") {
			begins := func(name string) bool { return strings.HasPrefix(name, "Test"+start) }
			require.True(t, slices.ContainsFunc(slices.Collect(maps.Keys(exists)), begins), "the Makefile runs tests that begin with %s, and there are none", start)
		}
	}
	for path, text := range documents(t) {
		for _, n := range named.FindAllStringSubmatch(text, -1) {
			require.True(t, exists[n[1]], "%s names the test %s, which does not exist", path, n[1])
		}
	}
}

// TestNamedFiles finds every source file that a document names, by its path or the end of it.
func TestNamedFiles(t *testing.T) {
	t.Parallel()
	exists := map[string]bool{}
	for _, path := range files(t) {
		for rest, more := path, true; more; _, rest, more = strings.Cut(rest, "/") {
			exists[rest] = true
		}
	}
	for path, text := range documents(t) {
		for _, f := range source.FindAllStringSubmatch(text, -1) {
			require.True(t, exists[f[1]], "%s names the file %s, which does not exist", path, f[1])
		}
	}
}

// The rules that everything depends on are few, and numbered in order.
func TestInvariantsAreTwenty(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs", "invariants.md"))
	require.NoError(t, err)
	rows := numbered.FindAllStringSubmatch(string(text), -1)
	require.Len(t, rows, 20)
	for i, row := range rows {
		require.Equal(t, strconv.Itoa(i+1), row[1])
	}
}

// Prose wraps at 100 columns, and the documents stay short.
func TestLength(t *testing.T) {
	t.Parallel()
	words := 0
	for path, text := range documents(t) {
		if strings.HasPrefix(path, filepath.Join(root, "docs")) && filepath.Base(path) != "bench.md" {
			words += len(word.FindAllString(text, -1))
		}
		if generated[filepath.Base(path)] {
			continue
		}
		for line := range strings.Lines(text) {
			prose := !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "    ") && !strings.HasPrefix(line, "![")
			if prose {
				require.LessOrEqual(t, utf8.RuneCountInString(strings.TrimSpace(line)), 100, "%s: %s", path, line)
			}
		}
	}
	require.LessOrEqual(t, words, maxWords)
}
