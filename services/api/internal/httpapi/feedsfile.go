package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/tagstream/tagstream/pkg/event"
)

// Feeds are the Bluesky feeds that an operator declares.
type Feeds struct {
	// publisher is the DID of the account whose repository has the feeds' records.
	publisher string
	feeds     []namedFeed
}

type namedFeed struct {
	rkey, name, description string
	list                    postList
}

const (
	generatorCollection = "app.bsky.feed.generator"
	// Limits of app.bsky.feed.generator in characters. Bluesky accepts no longer record keys.
	maxFeedRkey = 15
	maxFeedName = 24
	maxFeeds    = 100
	// maxFeedsFile bounds the file, in bytes.
	maxFeedsFile = 1 << 20
)

// uri is the at-uri of a feed's record.
func (f *Feeds) uri(n namedFeed) string {
	return "at://" + f.publisher + "/" + generatorCollection + "/" + n.rkey
}

// LoadFeeds reads a file of feeds. The error names the file and, if possible, the line.
func LoadFeeds(path string) (*Feeds, error) {
	data, err := readBounded(path, maxFeedsFile)
	if err != nil {
		return nil, err
	}
	feeds, err := parseFeeds(data)
	if err != nil {
		return nil, fmt.Errorf("feeds file %s: %w", path, err)
	}
	return feeds, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("feeds file %s is longer than %d bytes", path, limit)
	}
	return data, err
}

// feedEntry is one feed in the file, with the number of its first line.
type feedEntry struct {
	Rkey        string `yaml:"rkey"`
	Name        string `yaml:"name"`
	Description string `yaml:"description"`
	Query       string `yaml:"query"`
	line        int
}

// feedEntryKeys are the allowed keys of an entry.
var feedEntryKeys = map[string]bool{"rkey": true, "name": true, "description": true, "query": true}

func (e *feedEntry) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: a feed is rkey, name, description and query", node.Line)
	}
	// KnownFields has no effect below an UnmarshalYAML, so unknown keys are refused here.
	for i := 0; i < len(node.Content); i += 2 {
		if key := node.Content[i]; !feedEntryKeys[key.Value] {
			return fmt.Errorf("line %d: a feed has no %q: it is rkey, name, description and query", key.Line, key.Value)
		}
	}
	type plain feedEntry // without UnmarshalYAML, which would call itself
	if err := node.Decode((*plain)(e)); err != nil {
		return err
	}
	e.line = node.Line
	return nil
}

func parseFeeds(data []byte) (*Feeds, error) {
	var file struct {
		Publisher string      `yaml:"publisher"`
		Feeds     []feedEntry `yaml:"feeds"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var wrong *yaml.TypeError
	switch err := dec.Decode(&file); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("is empty")
	case errors.As(err, &wrong) && len(wrong.Errors) > 0: // the full text has several lines with values and Go types
		line, _, _ := strings.Cut(wrong.Errors[0], ":")
		return nil, fmt.Errorf("%s: the file has publisher, a DID, and feeds, a list", line)
	case err != nil:
		return nil, err
	}
	if !event.ValidDID(file.Publisher) {
		return nil, fmt.Errorf("publisher: %q is not a DID such as did:plc:ewvi7nxzyoun6zhxrhs64oiz", file.Publisher)
	}
	if len(file.Feeds) == 0 || len(file.Feeds) > maxFeeds {
		return nil, fmt.Errorf("feeds: there are %d, but 1 to %d are allowed", len(file.Feeds), maxFeeds)
	}
	out := &Feeds{publisher: file.Publisher}
	seen := map[string]int{}
	for _, e := range file.Feeds {
		bad := func(format string, args ...any) error {
			return fmt.Errorf("line %d: "+format, append([]any{e.line}, args...)...)
		}
		switch first, twice := seen[e.Rkey]; {
		case !event.ValidRkey(e.Rkey) || len(e.Rkey) > maxFeedRkey:
			return nil, bad("rkey: %q is not a record key of at most %d characters", e.Rkey, maxFeedRkey)
		case twice:
			return nil, bad("rkey: %q is also the rkey of the feed on line %d", e.Rkey, first)
		case e.Name == "" || len([]rune(e.Name)) > maxFeedName:
			return nil, bad("name: %q is not 1 to %d characters", e.Name, maxFeedName)
		}
		seen[e.Rkey] = e.line
		q, err := parseQuery(e.Query, filters)
		if err != nil {
			return nil, bad("query: %w", detail(err))
		}
		list, err := parsePostList(q)
		if err != nil {
			return nil, bad("query: %w", detail(err))
		}
		out.feeds = append(out.feeds, namedFeed{e.Rkey, e.Name, e.Description, list})
	}
	return out, nil
}

// detail returns a problem's detail, without its code.
func detail(err error) error {
	var p *problem
	if errors.As(err, &p) {
		return errors.New(p.Detail)
	}
	return err
}
