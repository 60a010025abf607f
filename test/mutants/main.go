// Command mutants proves that the tests can fail. Each patch in its folder plants one bug and names
// the test that must find it:
//
//	# bug: the checkpoint moves outside of the transaction
//	# test: ./test/e2e TestIndexerCommitFaults
//	--- a/pkg/store/writer.go
//	...
//
// The command copies the tree to temporary folders, so the tree itself never changes. There it
// first runs all named tests without a bug, and then, for each bug, the test that must find it, in
// as many copies at once as -jobs says. It prints a table and exits with 1 if a bug was not
// found, a patch does not apply or compile, or a test fails without any bug.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// testLimit bounds one test. A bug may make it wait forever, which also counts as found.
const testLimit = 3 * time.Minute

// tailBytes is how much of a test's output is shown if its summary says too little.
const tailBytes = 2000

func main() {
	only := flag.String("run", "", "only patches whose names match this `regexp`")
	dir := flag.String("patches", "test/mutants", "where the patches are")
	jobs := flag.Int("jobs", 2, "how many bugs are tried at once, each in its copy of the tree")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, *dir, *only, *jobs)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

// mutant is one patch.
type mutant struct {
	name      string // of the file, without its extension
	path      string
	bug       string
	pkg, test string // of the test that must find it
}

func run(ctx context.Context, dir, only string, jobs int) (ok bool, err error) {
	start := time.Now()
	mutants, err := load(dir, only)
	if err != nil {
		return false, err
	}
	if len(mutants) == 0 {
		return false, errors.New("no patch matches")
	}
	if jobs < 1 {
		return false, fmt.Errorf("-jobs %d: at least 1", jobs)
	}
	top, err := os.MkdirTemp("", "tagstream-mutants-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(top)
	trees := make([]string, min(jobs, len(mutants)))
	for i := range trees {
		trees[i] = filepath.Join(top, fmt.Sprint(i))
		if err := copyTree(ctx, trees[i]); err != nil {
			return false, err
		}
	}
	sound, err := baseline(ctx, trees, mutants)
	if err != nil {
		return false, err
	}
	next := make(chan mutant, len(mutants))
	for _, m := range mutants {
		next <- m
	}
	close(next)
	var found atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for _, tree := range trees {
		group.Go(func() error {
			for m := range next {
				verdict, detail, err := try(ctx, tree, m)
				if err != nil {
					return err
				}
				if !sound[m.pkg+" "+m.test] && verdict == caught {
					verdict, detail = "UNPROVEN", "the test fails without a bug, too"
				}
				if verdict == caught {
					found.Add(1)
				}
				fmt.Printf("%-9s %-34s %s (%s %s) %s\n", verdict, m.name, m.bug, m.pkg, m.test, detail)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	fmt.Printf("%d of %d planted bugs caught in %v\n", found.Load(), len(mutants), time.Since(start).Round(time.Second))
	return found.Load() == int64(len(mutants)), nil
}

// load reads the patches' headers.
func load(dir, only string) ([]mutant, error) {
	match, err := regexp.Compile(only)
	if err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var mutants []mutant
	for _, path := range paths {
		m := mutant{name: strings.TrimSuffix(filepath.Base(path), ".patch")}
		if m.path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		if !match.MatchString(m.name) {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if bug, is := strings.CutPrefix(line, "# bug: "); is {
				m.bug = strings.TrimSpace(bug)
			}
			if test, is := strings.CutPrefix(line, "# test: "); is {
				m.pkg, m.test, _ = strings.Cut(strings.TrimSpace(test), " ")
			}
		}
		if m.bug == "" || m.pkg == "" || m.test == "" {
			return nil, fmt.Errorf("%s does not name its bug and its test", path)
		}
		mutants = append(mutants, m)
	}
	return mutants, nil
}

// copyTree copies the files that git tracks or would add, in their current state.
func copyTree(ctx context.Context, to string) error {
	out, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("list the tree's files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but still in git's index
		}
		if err != nil {
			return err
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// baseline runs the tests without a bug, those of one package together, and returns which pass. A
// test that fails among others is run again alone.
func baseline(ctx context.Context, trees []string, mutants []mutant) (map[string]bool, error) {
	tests := map[string][]string{}
	for _, m := range mutants {
		if !slices.Contains(tests[m.pkg], m.test) {
			tests[m.pkg] = append(tests[m.pkg], m.test)
		}
	}
	pkgs := make(chan string, len(tests))
	for pkg := range tests {
		pkgs <- pkg
	}
	close(pkgs)
	var mu sync.Mutex
	sound := map[string]bool{}
	group, ctx := errgroup.WithContext(ctx)
	for _, tree := range trees {
		group.Go(func() error {
			for pkg := range pkgs {
				out, _, err := test(ctx, tree, pkg, tests[pkg]...)
				if err != nil {
					return err
				}
				for _, name := range tests[pkg] {
					passed := ran(out, name)
					if !passed {
						alone, _, err := test(ctx, tree, pkg, name)
						if err != nil {
							return err
						}
						if passed = ran(alone, name); !passed {
							fmt.Printf("%s %s fails without a bug:\n%s\n", pkg, name, tail(alone))
						}
					}
					mu.Lock()
					sound[pkg+" "+name] = passed
					mu.Unlock()
				}
			}
			return nil
		})
	}
	return sound, group.Wait()
}

// ran reports whether a test passed, and was not skipped.
func ran(out []byte, test string) bool { return bytes.Contains(out, []byte("--- PASS: "+test+" ")) }

const caught = "caught"

// try plants one bug, runs its test and removes the bug.
func try(ctx context.Context, tree string, m mutant) (verdict, detail string, err error) {
	// -C1: lines further away than one from the bug may have changed.
	apply := func(more ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "git", append(append([]string{"apply", "-C1"}, more...), m.path)...)
		// Independent of any repository that contains the copy.
		cmd.Dir, cmd.Env = tree, append(os.Environ(), "GIT_CEILING_DIRECTORIES="+filepath.Dir(tree))
		return cmd.CombinedOutput()
	}
	if out, err := apply(); err != nil {
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		return "STALE", "the patch does not apply any more, cut it again: " + string(tail(out)), nil
	}
	defer func() {
		if out, undo := apply("-R"); undo != nil && err == nil {
			err = fmt.Errorf("remove %s: %w: %s", m.name, undo, out)
		}
	}()
	out, passed, err := test(ctx, tree, m.pkg, m.test)
	switch {
	case err != nil:
		return "", "", err
	case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
		return "BROKEN", "it does not compile: " + string(tail(out)), nil
	case passed:
		return "SURVIVED", "", nil
	case bytes.Contains(out, []byte("--- FAIL: "+m.test)), bytes.Contains(out, []byte("panic: ")):
		return caught, "", nil
	}
	return "UNCLEAR", "the run failed, but not the test: " + string(tail(out)), nil
}

// test runs tests of a package by name. The error is that of an interrupted run.
func test(ctx context.Context, tree, pkg string, names ...string) (out []byte, passed bool, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", pkg, "-run", "^("+strings.Join(names, "|")+")$",
		"-count=1", "-v", "-vet=off", "-timeout", (testLimit * time.Duration(len(names))).String())
	cmd.Dir = tree
	// On an interrupt it ends its children and cleans up, like in a terminal.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	out, err = cmd.CombinedOutput()
	if ctx.Err() != nil {
		return nil, false, ctx.Err()
	}
	return out, err == nil, nil
}

func tail(out []byte) []byte {
	return bytes.TrimSpace(out[max(0, len(out)-tailBytes):])
}
