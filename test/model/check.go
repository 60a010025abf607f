package model

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Bounds of one check, so that it also ends on a big index. Below them it is
// complete.
const (
	maxPostsChecked  = 2000 // visible posts fetched one by one
	maxAbsentChecked = 500  // and ones that must not be found
	tagsWalked       = 40   // lists walked for one tag
	maxTagsChecked   = 400  // and lists of which one page is read
	tagSetsChecked   = 4    // lists walked for several tags
	queriesChecked   = 16   // lists walked for random queries

	requestTimeout = 30 * time.Second
	maxAnswerBytes = 64 << 20
)

// Option changes what CheckHTTP does.
type Option func(*checker)

// ShortPages lets pages of posts be short, even empty, where they say that the
// list goes on, and counts them. Without it every page must be full, unless its
// posts are too big together: no list of a small index costs more than a request
// may. With it, what lies behind the reader may also be said to be there when it
// is not.
func ShortPages(count *int) Option { return func(c *checker) { c.short = count } }

// Queries sets how many random queries are walked, and the seed that they are
// made from. By default they are 16, from seed 1.
func Queries(n int, seed uint64) Option {
	return func(c *checker) { c.queries, c.seed = n, seed }
}

// CheckHTTP compares everything that the API at baseURL answers with the
// index, which must not change meanwhile: each post by itself, hidden and
// removed ones (404), the list of each tag and of random queries walked to its
// end and back, the tags, and the totals. It stops the test at the first
// difference.
func CheckHTTP(t testing.TB, baseURL string, want *Index, options ...Option) {
	t.Helper()
	if err := newChecker(baseURL, want, options).check(t.Context()); err != nil {
		t.Fatalf("the API differs from the model: %v", err)
	}
}

// CheckQueries is CheckHTTP of the lists of these queries alone, in pages of
// about limit posts. The names in the queries must be in normal form.
func CheckQueries(t testing.TB, baseURL string, want *Index, queries []Query, limit int, options ...Option) {
	t.Helper()
	c := newChecker(baseURL, want, options)
	c.know()
	for _, q := range queries {
		if err := c.checkList(t.Context(), q, limit); err != nil {
			t.Fatalf("the API differs from the model: %v", err)
		}
	}
}

// CheckTags is CheckHTTP of the tags alone: their list, completions, and numbers.
func CheckTags(t testing.TB, baseURL string, want *Index) {
	t.Helper()
	c := newChecker(baseURL, want, nil)
	c.know()
	if err := c.run(t.Context(), c.checkTagList, c.checkCompletions, c.checkTagInfos); err != nil {
		t.Fatalf("the API differs from the model: %v", err)
	}
}

type checker struct {
	base    string
	want    *Index
	short   *int // counts short pages; nil where there must be none
	tags    int  // lists of one tag that are walked to their ends
	sets    int  // and of several
	queries int
	seed    uint64
	client  http.Client
	rng     *rand.Rand

	// Known once each post was looked at.
	posts   List              // the visible ones
	counts  []TagCount        // of their tags
	cursors map[string]string // at-uri -> the cursor that the post came with alone
}

func newChecker(baseURL string, want *Index, options []Option) *checker {
	c := &checker{base: strings.TrimSuffix(baseURL, "/"), want: want, tags: tagsWalked, sets: tagSetsChecked, queries: queriesChecked, seed: 1, cursors: map[string]string{}}
	for _, o := range options {
		o(c)
	}
	c.rng = rand.New(rand.NewPCG(c.seed, 3))
	return c
}

func (c *checker) check(ctx context.Context) error {
	if len(c.want.complaints) > 0 {
		return fmt.Errorf("the history itself breaks the contract: %s", c.want.complaints[0])
	}
	return c.run(ctx, c.checkPosts, c.checkAbsent,
		c.checkTags, c.checkTagSets, c.checkCorners, c.checkQueries, c.checkRefused,
		c.checkTagList, c.checkCompletions, c.checkTagInfos, c.checkStatus)
}

func (c *checker) run(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// get asks for a path with its query and reads the JSON answer into out, which
// may be nil.
func (c *checker) get(ctx context.Context, target string, status int, out any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	fail := func(err error) (http.Header, error) { return nil, fmt.Errorf("GET %s: %w", target, err) }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+target, nil)
	if err != nil {
		return fail(err)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return fail(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
	if err != nil {
		return fail(err)
	}
	if res.StatusCode != status {
		return fail(fmt.Errorf("status %d, want %d: %s", res.StatusCode, status, cut(string(body))))
	}
	kind := "application/json"
	if status >= 400 {
		kind = "application/problem+json"
	}
	if got, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); got != kind {
		return fail(fmt.Errorf("content type %q, want %q", got, kind))
	}
	if out != nil {
		if err := decodeJSON(body, out); err != nil {
			return fail(fmt.Errorf("%w in %s", err, cut(string(body))))
		}
	}
	return res.Header, nil
}

// cut shortens a text that may be long for an error message.
func cut(s string) string {
	if len(s) > 300 {
		return strings.ToValidUTF8(s[:300], "") + "..."
	}
	return s
}

// sample takes at most n items, evenly spread, always the first.
func sample[T any](items []T, n int) []T {
	if len(items) <= n {
		return items
	}
	var some []T
	for i := range n {
		some = append(some, items[i*len(items)/n])
	}
	return some
}

func postPath(did, rkey string) string {
	return "/v1/posts/" + url.PathEscape(did) + "/" + url.PathEscape(rkey)
}

// checkPosts fetches the visible posts one by one, and learns times that only
// the API knows.
func (c *checker) checkPosts(ctx context.Context) error {
	posts := c.want.Posts()
	if !slices.ContainsFunc(posts, func(p Post) bool { return p.timesUnknown }) {
		posts = sample(posts, maxPostsChecked)
	}
	for _, p := range posts {
		var got postAnswer
		if _, err := c.get(ctx, postPath(p.DID, p.Rkey), http.StatusOK, &got); err != nil {
			return err
		}
		if err := c.adoptTimes(p.URI, got); err != nil {
			return fmt.Errorf("post %s: %w", p.URI, err)
		}
		if err := got.differs(c.want.posts[p.URI]); err != nil {
			return fmt.Errorf("GET %s: %w", postPath(p.DID, p.Rkey), err)
		}
		c.cursors[p.URI] = got.Cursor
	}
	c.know()
	return nil
}

// know takes over what the index holds, whose times are known.
func (c *checker) know() { c.posts, c.counts = c.want.Posts(), c.want.TagCounts() }

func (c *checker) adoptTimes(uri string, got postAnswer) error {
	indexedAt, err := time.Parse(timeFormat, got.IndexedAt)
	if err != nil {
		return fmt.Errorf("indexedAt: %w", err)
	}
	sortAt, err := time.Parse(timeFormat, got.SortAt)
	if err != nil {
		return fmt.Errorf("sortAt: %w", err)
	}
	return c.want.adopt(uri, indexedAt, sortAt)
}

// checkAbsent asks for posts that readers must not see.
func (c *checker) checkAbsent(ctx context.Context) error {
	paths := []string{postPath("did:plc:nobody", "nothing")}
	for _, p := range sample(c.want.Hidden(), maxAbsentChecked) {
		paths = append(paths, postPath(p.DID, p.Rkey))
	}
	for _, uri := range sample(c.want.Absent(), maxAbsentChecked) {
		paths = append(paths, postPath(didOf(uri), uri[strings.LastIndex(uri, "/")+1:]))
	}
	for _, path := range paths {
		if err := c.refused(ctx, path, http.StatusNotFound, "not_found"); err != nil {
			return err
		}
	}
	return nil
}

// refused asks for what must be refused, with that code.
func (c *checker) refused(ctx context.Context, target string, status int, code string) error {
	var problem map[string]any // RFC 9457 lets it have more fields
	if _, err := c.get(ctx, target, status, &problem); err != nil {
		return err
	}
	if problem["code"] != code {
		return fmt.Errorf("GET %s: code is %v, want %s", target, problem["code"], code)
	}
	return nil
}

// checkStatus compares the totals.
func (c *checker) checkStatus(ctx context.Context) error {
	status, err := c.status(ctx)
	if err != nil {
		return err
	}
	var totals map[string]json.Number
	if err := decodeJSON(status["totals"], &totals); err != nil {
		return fmt.Errorf("GET /v1/status: totals: %w", err)
	}
	for name, want := range map[string]int{
		"posts":        len(c.want.posts),
		"visiblePosts": len(c.posts),
		"tags":         len(c.counts),
		"deadLetters":  c.want.deadLetters,
	} {
		if got := totals[name].String(); got != strconv.Itoa(want) {
			return fmt.Errorf("GET /v1/status: totals.%s is %s, want %d", name, got, want)
		}
	}
	return nil
}

func (c *checker) status(ctx context.Context) (status map[string]json.RawMessage, err error) {
	_, err = c.get(ctx, "/v1/status", http.StatusOK, &status)
	return status, err
}

// timeFormat is RFC 3339 in UTC with exactly six digits of microseconds.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// postAnswer is a post as the API gives it.
type postAnswer struct {
	URI       string          `json:"uri"`
	CID       string          `json:"cid"`
	DID       string          `json:"did"`
	Rkey      string          `json:"rkey"`
	Tags      []string        `json:"tags"`
	Langs     []string        `json:"langs"`
	CreatedAt json.RawMessage `json:"createdAt"`
	IndexedAt string          `json:"indexedAt"`
	SortAt    string          `json:"sortAt"`
	Record    json.RawMessage `json:"record"`
	Cursor    string          `json:"cursor"`
}

// differs says how the answer is not the post, nil when it is.
func (got *postAnswer) differs(want *Post) error {
	for _, f := range []struct{ name, got, want string }{
		{"uri", got.URI, want.URI},
		{"did", got.DID, want.DID},
		{"rkey", got.Rkey, want.Rkey},
		{"cid", got.CID, want.CID},
		{"tags", fmt.Sprintf("%q", got.Tags), fmt.Sprintf("%q", want.Tags)},
		{"langs", fmt.Sprintf("%q", got.Langs), fmt.Sprintf("%q", want.Langs)},
		{"indexedAt", got.IndexedAt, want.IndexedAt.Format(timeFormat)},
		{"sortAt", got.SortAt, want.SortAt().Format(timeFormat)},
	} {
		if f.got != f.want {
			return fmt.Errorf("post %s: %s is %s, want %s", want.URI, f.name, cut(f.got), cut(f.want))
		}
	}
	if got.Tags == nil || got.Langs == nil {
		return fmt.Errorf("post %s: tags or langs are null, not a list", want.URI)
	}
	createdAt := []byte("null")
	if want.CreatedAt != "" {
		createdAt, _ = json.Marshal(want.CreatedAt)
	}
	if want.CreatedAt == "" && string(got.CreatedAt) == `""` {
		createdAt = got.CreatedAt // the record's own, which the event does not tell from none
	}
	switch {
	case !sameJSON(got.CreatedAt, createdAt):
		return fmt.Errorf("post %s: createdAt is %s, want %s", want.URI, got.CreatedAt, createdAt)
	case !sameJSON(got.Record, want.Record):
		return fmt.Errorf("post %s: record is\n\t%s\nwant\n\t%s", want.URI, cut(string(got.Record)), cut(string(want.Record)))
	case got.Cursor == "":
		return fmt.Errorf("post %s: no cursor", want.URI)
	}
	return nil
}
