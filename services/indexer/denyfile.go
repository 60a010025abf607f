package indexer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

const (
	// denyEvery is how often the deny file is checked.
	denyEvery = time.Second
	// Limits of a deny file: every list of tags is filtered by its tags.
	maxDenyFile       = 1 << 20
	maxDeniedAccounts = 10_000
	maxDeniedTags     = 1000
)

// denyFile is the operator's file of what is not shown, and its last valid content. It must be used
// from one goroutine.
type denyFile struct {
	path    string
	log     *slog.Logger
	content apply.Deny
	read    fs.FileInfo // of the file when its content was read
	seen    fs.FileInfo // of the file when it was last checked
	checked time.Time
	logged  string // the error that was logged last
}

// openDenyFile reads the file; without a path nothing is denied. The error is a
// *service.ConfigError.
func openDenyFile(path string, log *slog.Logger) (*denyFile, error) {
	f := &denyFile{path: path, log: log}
	if path != "" {
		if _, err := f.reload(); err != nil {
			return nil, service.Bad("DENY_FILE", err)
		}
	}
	return f, nil
}

// changed reads the file again if it has changed, and reports whether it has. An invalid or missing
// file is logged and changes nothing.
func (f *denyFile) changed() bool {
	if f.path == "" || time.Since(f.checked) < denyEvery {
		return false
	}
	changed, err := f.reload()
	switch {
	case changed:
		f.logged = ""
	case err != nil && err.Error() != f.logged:
		f.logged = err.Error()
		f.log.Error("the deny file is invalid: its last valid version stays in effect", "err", err)
	}
	return changed
}

// reload reads the file if it has changed, and reports whether it has.
func (f *denyFile) reload() (changed bool, err error) {
	f.checked = time.Now()
	info, err := os.Stat(f.path)
	if err != nil {
		return false, err
	}
	if f.read != nil {
		// It may be half written until it is the same twice, or older.
		written := same(info, f.seen) || time.Since(info.ModTime()) > 2*denyEvery
		f.seen = info
		if !written || same(info, f.read) {
			return false, nil
		}
	}
	if info.Size() > maxDenyFile {
		return false, fmt.Errorf("%s is over %d bytes", f.path, maxDenyFile)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return false, err
	}
	f.read, f.seen = info, info
	content, err := parseDeny(data)
	if err != nil {
		return false, fmt.Errorf("deny file %s: %w", f.path, err)
	}
	f.content = content
	return true, nil
}

// same reports whether a file has not changed between two checks.
func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// parseDeny reads a deny file. Tags may be in any form. An empty file denies nothing.
func parseDeny(data []byte) (apply.Deny, error) {
	var raw struct {
		Accounts []yaml.Node
		Tags     []yaml.Node
	}
	var out apply.Deny
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&raw); err != nil && !errors.Is(err, io.EOF) {
		return out, err
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return out, errors.New("more than one document")
	}
	if len(raw.Accounts) > maxDeniedAccounts || len(raw.Tags) > maxDeniedTags {
		return out, fmt.Errorf("more than %d accounts or %d tags", maxDeniedAccounts, maxDeniedTags)
	}
	for _, n := range raw.Accounts {
		if n.Kind != yaml.ScalarNode || !event.ValidDID(n.Value) {
			return out, fmt.Errorf("line %d: %q is not a DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz", n.Line, n.Value)
		}
		out.Accounts = append(out.Accounts, n.Value)
	}
	for _, n := range raw.Tags {
		tag, err := event.NormalizeTag(n.Value)
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || err != nil {
			return out, fmt.Errorf("line %d: not a tag; a tag with a leading # needs quotes", n.Line)
		}
		out.Tags = append(out.Tags, tag)
	}
	return out, nil
}
