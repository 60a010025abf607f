package model

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Limits of one check, so that it also ends on a big index. Below them it is complete.
const (
	maxPostsChecked  = 2000 // visible posts fetched one by one
	maxAbsentChecked = 500  // posts that must not be found
	tagsWalked       = 40   // tags whose list is walked
	maxTagsChecked   = 400  // tags whose list is read for one page

	requestTimeout = 30 * time.Second
	maxAnswerBytes = 64 << 20
)

// timeFormat is RFC 3339 in UTC with exactly six digits of microseconds.
const timeFormat = "2006-01-02T15:04:05.000000Z"

// Option changes what CheckHTTP does.
type Option func(*checker)

// ShortPages accepts and counts pages of posts that are short or even empty although the list
// continues. Without it every page must be full, unless its posts are too big together: no list of
// a small index costs more than a request may. With it, a page may also claim that rows precede it
// when there are none.
func ShortPages(count *int) Option { return func(c *checker) { c.short = count } }

// Queries sets the number of random queries to walk, and their seed. The defaults are 16 and 1.
func Queries(n int, seed uint64) Option {
	return func(c *checker) { c.queries, c.seed = n, seed }
}

// CheckHTTP compares everything that the API at baseURL answers with the index, which must not
// change meanwhile: single posts, hidden and removed ones (404), the lists of tags and of random
// queries in both directions, searches by AppViews, tags, popular tags, and totals. It stops the
// test at the first difference.
func CheckHTTP(t testing.TB, baseURL string, want *Index, options ...Option) {
	t.Helper()
	report(t, Check(t.Context(), baseURL, want, options...))
}

// Check is CheckHTTP, but returns the first difference.
func Check(ctx context.Context, baseURL string, want *Index, options ...Option) error {
	if len(want.complaints) > 0 {
		return fmt.Errorf("the history itself breaks the contract: %s", want.complaints[0])
	}
	c := newChecker(baseURL, want, options)
	return c.run(ctx, c.checkPosts, c.checkAbsent, c.checkTags, c.checkCorners, c.checkQueries, c.checkRefused, c.checkSearch,
		c.checkTagList, c.checkCompletions, c.checkTagInfos, c.checkPopular, c.checkStatus)
}

// CheckQueries is CheckHTTP for the lists of these queries alone, in pages of about limit posts.
// The names in the queries must be in normal form.
func CheckQueries(t testing.TB, baseURL string, want *Index, queries []Query, limit int, options ...Option) {
	t.Helper()
	report(t, Lists(t.Context(), baseURL, want, queries, limit, options...))
}

// Lists is CheckQueries, but returns the first difference.
func Lists(ctx context.Context, baseURL string, want *Index, queries []Query, limit int, options ...Option) error {
	c := newChecker(baseURL, want, options)
	for _, q := range queries {
		if err := c.walkPosts(ctx, q, limit, everyStep); err != nil {
			return err
		}
	}
	return nil
}

// CheckTags is CheckHTTP for tags alone: their list, completions and counts.
func CheckTags(t testing.TB, baseURL string, want *Index) {
	t.Helper()
	c := newChecker(baseURL, want, nil)
	report(t, c.run(t.Context(), c.checkTagList, c.checkCompletions, c.checkTagInfos))
}

func report(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("the API differs from the model: %v", err)
	}
}

type checker struct {
	base    string
	want    *Index
	short   *int // counts short pages; nil if there must be none
	queries int
	seed    uint64
	client  http.Client
	rng     *rand.Rand

	posts   []Post            // the visible ones, newest first
	counts  []TagCount        // their tags
	cursors map[string]string // at-uri -> cursor of the post fetched alone
}

func newChecker(baseURL string, want *Index, options []Option) *checker {
	c := &checker{base: strings.TrimSuffix(baseURL, "/"), want: want, queries: 16, seed: 1, cursors: map[string]string{}}
	for _, o := range options {
		o(c)
	}
	c.rng = rand.New(rand.NewPCG(c.seed, 3))
	c.posts, c.counts = want.Posts(), want.TagCounts()
	return c
}

func (c *checker) run(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// get requests a path with its query and decodes the JSON answer into out, which may be nil.
func (c *checker) get(ctx context.Context, target string, status int, out any) (http.Header, error) {
	kind := "application/json"
	if status >= 400 {
		kind = "application/problem+json"
	}
	return c.ask(ctx, target, status, kind, out)
}

// ask is get for a given content type.
func (c *checker) ask(ctx context.Context, target string, status int, kind string, out any) (header http.Header, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("GET %s: %w", target, err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+target, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswerBytes))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != status {
		return nil, fmt.Errorf("status %d, want %d: %.300s", res.StatusCode, status, body)
	}
	if got, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); got != kind {
		return nil, fmt.Errorf("content type %q, want %q", got, kind)
	}
	if out != nil {
		if err := decodeJSON(body, out); err != nil {
			return nil, fmt.Errorf("%w in %.300s", err, body)
		}
	}
	return res.Header, nil
}

// refused sends a request that must be refused with that code.
func (c *checker) refused(ctx context.Context, target string, status int, code string) error {
	var problem map[string]any // RFC 9457 allows more fields
	if _, err := c.get(ctx, target, status, &problem); err != nil {
		return err
	}
	if problem["code"] != code {
		return fmt.Errorf("GET %s: code is %v, want %s", target, problem["code"], code)
	}
	return nil
}

// sample returns at most n items, evenly spread and including the first.
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

// checkPosts fetches the visible posts one by one, and adopts times that only the API knows.
func (c *checker) checkPosts(ctx context.Context) error {
	posts := c.posts
	if c.want.network == nil {
		posts = sample(posts, maxPostsChecked)
	}
	for _, p := range posts {
		var got postAnswer
		if _, err := c.get(ctx, postPath(p.DID, p.Rkey), http.StatusOK, &got); err != nil {
			return err
		}
		stored := c.want.posts[p.URI]
		indexedAt, err1 := time.Parse(timeFormat, got.IndexedAt)
		sortAt, err2 := time.Parse(timeFormat, got.SortAt)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("post %s: indexedAt %q, sortAt %q: not a time in microseconds", p.URI, got.IndexedAt, got.SortAt)
		}
		if err := c.want.adopt(stored, indexedAt, sortAt); err != nil {
			return fmt.Errorf("post %s: %w", p.URI, err)
		}
		c.want.adoptAuthor(p.DID, got.Author)
		now := c.want.read(stored)
		if err := got.differs(&now); err != nil {
			return err
		}
		c.cursors[p.URI] = got.Cursor
	}
	c.posts = c.want.Posts()
	return nil
}

// checkAbsent requests posts that readers must not see.
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
		"posts": len(c.want.posts), "visiblePosts": len(c.posts), "tags": len(c.counts), "deadLetters": c.want.deadLetters,
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

// postAnswer is a post in an answer.
type postAnswer struct {
	URI       string          `json:"uri"`
	CID       string          `json:"cid"`
	DID       string          `json:"did"`
	Rkey      string          `json:"rkey"`
	Author    authorAnswer    `json:"author"`
	Tags      []string        `json:"tags"`
	Langs     []string        `json:"langs"`
	CreatedAt json.RawMessage `json:"createdAt"`
	IndexedAt string          `json:"indexedAt"`
	SortAt    string          `json:"sortAt"`
	Record    json.RawMessage `json:"record"`
	Cursor    string          `json:"cursor"`
}

// authorAnswer is a post's author in an answer; unknown fields are null.
type authorAnswer struct {
	DID         string  `json:"did"`
	Handle      *string `json:"handle"`
	DisplayName *string `json:"displayName"`
	Avatar      *string `json:"avatar"`
}

func (a authorAnswer) String() string {
	known := func(s *string) string {
		if s == nil {
			return "null"
		}
		return strconv.Quote(*s)
	}
	return fmt.Sprintf("%s %s %s %s", a.DID, known(a.Handle), known(a.DisplayName), known(a.Avatar))
}

// answer returns the author as the API must show it.
func (a Author) answer(did string) authorAnswer {
	known := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return authorAnswer{did, known(a.Handle), known(a.DisplayName), known(a.Avatar)}
}

// differs returns the first difference between the answer and the post.
func (got *postAnswer) differs(want *Post) error {
	for _, f := range []struct{ name, got, want string }{
		{"uri", got.URI, want.URI},
		{"did", got.DID, want.DID},
		{"rkey", got.Rkey, want.Rkey},
		{"author", got.Author.String(), want.Author.answer(want.DID).String()},
		{"cid", got.CID, want.CID},
		{"tags", fmt.Sprintf("%q", got.Tags), fmt.Sprintf("%q", want.Shown)},
		{"langs", fmt.Sprintf("%q", got.Langs), fmt.Sprintf("%q", want.Langs)},
		{"indexedAt", got.IndexedAt, want.IndexedAt.Format(timeFormat)},
		{"sortAt", got.SortAt, want.SortAt().Format(timeFormat)},
	} {
		if f.got != f.want {
			return fmt.Errorf("post %s: %s is %.300s, want %.300s", want.URI, f.name, f.got, f.want)
		}
	}
	createdAt := []byte("null")
	if want.CreatedAt != "" {
		createdAt, _ = json.Marshal(want.CreatedAt)
	} else if string(got.CreatedAt) == `""` {
		createdAt = got.CreatedAt // an empty one of the record and a missing one are equal in the event
	}
	switch {
	case got.Tags == nil || got.Langs == nil:
		return fmt.Errorf("post %s: tags or langs are null, not a list", want.URI)
	case !sameJSON(got.CreatedAt, createdAt):
		return fmt.Errorf("post %s: createdAt is %s, want %s", want.URI, got.CreatedAt, createdAt)
	case !sameJSON(got.Record, want.Record):
		return fmt.Errorf("post %s: record is\n\t%.300s\nwant\n\t%.300s", want.URI, got.Record, want.Record)
	case got.Cursor == "":
		return fmt.Errorf("post %s: no cursor", want.URI)
	}
	return nil
}
