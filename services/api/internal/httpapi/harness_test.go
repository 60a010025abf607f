package httpapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// spec returns openapi.yaml and a router for it.
var spec = sync.OnceValues(func() (*openapi3.T, routers.Router) {
	doc, err := openapi3.NewLoader().LoadFromData(openapi)
	if err != nil {
		panic(err)
	}
	// The router does not support servers that are relative to the document.
	rooted := *doc
	rooted.Servers = nil
	router, err := gorillamux.NewRouter(&rooted)
	if err != nil {
		panic(err)
	}
	return doc, router
})

func testCodec(t testing.TB, id string) *keyset.Codec {
	t.Helper()
	key, err := keyset.NewKey(id, bytes.Repeat([]byte(id[:1]), keyset.MinSecret))
	require.NoError(t, err)
	codec, err := keyset.NewCodec(key)
	require.NoError(t, err)
	return codec
}

// served is a handler being served.
type served struct {
	url      string
	handler  *Handler
	registry *prometheus.Registry
}

func serve(t testing.TB, index Index, change ...func(*Config)) *served {
	t.Helper()
	s := &served{}
	s.handler, s.registry = newHandler(t, index, change...)
	srv := httptest.NewServer(s.handler)
	t.Cleanup(srv.Close)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var following sync.WaitGroup
	following.Go(func() { s.handler.RunFollowers(ctx) })
	t.Cleanup(func() { stop(); following.Wait() })
	s.url = srv.URL
	return s
}

func newHandler(t testing.TB, index Index, change ...func(*Config)) (*Handler, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	c := Config{
		Index: index, Codec: testCodec(t, "k1"), Logger: slog.New(slog.DiscardHandler), Registry: registry,
		MaxInFlight: 50, MaxFollowers: 20, Version: "test",
	}
	for _, f := range change {
		f(&c)
	}
	return New(c), registry
}

// answer is a response with its body uncompressed.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) json(t testing.TB, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	require.NoError(t, d.Decode(into), "%s", a.body)
}

// get sends a request and checks the answer against openapi.yaml. Headers are pairs of name and
// value.
func (s *served) get(t testing.TB, target string, headers ...string) answer {
	t.Helper()
	return s.do(t, http.MethodGet, target, headers...)
}

func (s *served) do(t testing.TB, method, target string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+target, nil)
	require.NoError(t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	// By default the transport uncompresses the body and hides that.
	res, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(req)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if res.Header.Get("Content-Encoding") == "gzip" && method != http.MethodHead {
		z, err := gzip.NewReader(bytes.NewReader(body))
		require.NoError(t, err)
		body, err = io.ReadAll(z)
		require.NoError(t, err)
	}
	a := answer{res.StatusCode, res.Header, body}
	a.checkCommon(t, strings.HasPrefix(target, "/v1/feeds/"))
	if method == http.MethodGet {
		a.checkSpec(t, req)
	}
	return a
}

// checkCommon checks what is true of every answer. Those of feeds may be cached.
func (a answer) checkCommon(t testing.TB, feed bool) {
	t.Helper()
	require.Equal(t, "*", a.header.Get("Access-Control-Allow-Origin"))
	require.Contains(t, a.header.Get("Access-Control-Expose-Headers"), "Link")
	require.Contains(t, a.header.Get("Access-Control-Expose-Headers"), "ETag")
	require.Equal(t, "nosniff", a.header.Get("X-Content-Type-Options"))
	require.Regexp(t, "^Accept-Encoding(, Accept)?$", a.header.Get("Vary"))
	switch {
	case a.status == http.StatusOK || a.status == http.StatusNotModified:
		require.Regexp(t, `^"[A-Za-z0-9_-]{22}(-gzip)?"$`, a.header.Get("ETag"))
		want := "no-cache"
		if feed {
			want = feedAge
		}
		require.Equal(t, want, a.header.Get("Cache-Control"))
	case a.status == http.StatusServiceUnavailable:
		require.NotEmpty(t, a.header.Get("Retry-After"))
	}
	if a.status == http.StatusNotModified {
		require.Empty(t, a.body)
	}
}

func (a answer) checkSpec(t testing.TB, req *http.Request) {
	t.Helper()
	_, router := spec()
	route, vars, err := router.FindRoute(req)
	if err != nil {
		require.Equal(t, http.StatusNotFound, a.status, "the path is not in openapi.yaml: %v", err)
		return
	}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: vars, Route: route}
	if a.status == http.StatusOK {
		require.NoError(t, openapi3filter.ValidateRequest(t.Context(), in), "the request was accepted")
	}
	header := a.header
	media, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	if media == "application/yaml" {
		return // the validator would parse it
	}
	if strings.HasSuffix(media, "xml") || media == "text/x-opml" {
		require.Contains(t, route.Operation.Responses.Status(a.status).Value.Content, media)
		return // the validator does not read XML
	}
	require.NoError(t, openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: a.status, Header: header, Body: io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}), "%s", a.body)
}

// requireProblem checks that the answer is a complete problem with this code.
func (a answer) requireProblem(t testing.TB, want code) problem {
	t.Helper()
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"), "%s", a.body)
	var p problem
	a.json(t, &p)
	require.Equal(t, want, p.Code, "%s", p.Detail)
	require.Equal(t, want.status(), a.status)
	require.Equal(t, want.status(), p.Status)
	require.Equal(t, "about:blank", p.Type)
	require.Equal(t, http.StatusText(a.status), p.Title)
	require.Regexp(t, `^[A-Z].*\.$`, p.Detail, "one sentence")
	require.NotContains(t, p.Detail, "\n")
	require.Less(t, len(p.Detail), 400)
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	require.Empty(t, a.header.Get("ETag"))
	return p
}

// deadIndex returns a real reader whose server does not exist: any answer other than 503 did not
// need the index.
func deadIndex(t testing.TB) *query.Reader {
	t.Helper()
	r, err := query.Open(t.Context(), store.Options{URL: "postgres://nobody@127.0.0.1:1/nothing?sslmode=disable"})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// fakeIndex answers with the results of its fields; a nil field returns nothing.
type fakeIndex struct {
	posts  func(context.Context, query.PostQuery) (query.PostPage, error)
	status func() (query.Status, error)
}

func (f fakeIndex) Posts(ctx context.Context, q query.PostQuery) (query.PostPage, error) {
	if f.posts == nil {
		return query.PostPage{Next: q.From, Previous: q.From}, nil
	}
	return f.posts(ctx, q)
}

func (f fakeIndex) Changes(context.Context, query.ChangeQuery) (query.ChangePage, error) {
	return query.ChangePage{}, nil
}

func (f fakeIndex) ChangedTags(context.Context, query.FeedPosition) (query.ChangedTags, error) {
	return query.ChangedTags{}, nil
}

func (f fakeIndex) Post(context.Context, string, string) (query.PostRow, error) {
	return query.PostRow{}, query.ErrNotFound
}

func (f fakeIndex) Quoted(context.Context, []query.PostName) ([]query.PostRow, error) {
	return nil, nil
}

func (f fakeIndex) Status(context.Context) (query.Status, error) {
	if f.status == nil {
		return query.Status{}, nil
	}
	return f.status()
}

// index is a migrated database with its writer.
type index struct {
	db     *pgtest.DB
	reader store.Options // as a role that may only select
	writer *write.Writer
	seq    uint64
	posts  map[string]*write.Post // by at-uri, as written
	author *write.Account
}

// t0 is the time to which times in tests are relative.
var t0 = time.Date(2026, 11, 1, 12, 0, 0, 123456000, time.UTC)

const author = "did:plc:author"

func newIndex(t testing.TB) *index {
	t.Helper()
	x := &index{db: pgtest.Database(t), posts: map[string]*write.Post{}, author: &write.Account{DID: author}}
	x.reader = store.Options{URL: x.db.SharedRole(t, "tagstream_reader").URL}
	owner := store.Options{URL: x.db.URL}
	require.NoError(t, store.Migrate(t.Context(), owner, slog.New(slog.DiscardHandler)))
	var err error
	x.writer, err = write.Open(t.Context(), owner, "test")
	require.NoError(t, err)
	t.Cleanup(x.writer.Close)
	_, err = x.writer.Acquire(t.Context())
	require.NoError(t, err)
	return x
}

func (x *index) open(t testing.TB) *query.Reader {
	t.Helper()
	r, err := query.Open(t.Context(), x.reader)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// write applies changes in one transaction, like the indexer.
func (x *index) write(t testing.TB, changes ...write.PostChange) {
	t.Helper()
	x.seq++
	err := x.writer.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		c := write.Changes{Posts: changes}
		if x.author.ID == 0 {
			c.Accounts = []*write.Account{x.author}
		}
		cp.Seq = x.seq
		cp.Source = event.Position{Host: "https://upstream.test", Seq: x.seq, Time: t0.Add(time.Duration(x.seq) * time.Second)}
		return cp, tx.Write(t.Context(), c)
	})
	require.NoError(t, err)
}

// add writes a post and returns its at-uri.
func (x *index) add(t testing.TB, rkey string, sortAt time.Time, tags ...string) string {
	t.Helper()
	uri, change := x.newPost(rkey, sortAt, tags...)
	x.write(t, change)
	return uri
}

func (x *index) newPost(rkey string, sortAt time.Time, tags ...string) (string, write.PostChange) {
	uri := event.URI(author, rkey)
	record := fmt.Sprintf(`{"$type":"app.bsky.feed.post","text":"<%s> & more","createdAt":%q,"tags":["%s"]}`,
		rkey, sortAt.Format(time.RFC3339Nano), strings.Join(tags, `","`))
	p := &write.Post{
		Key: event.NewKey(sortAt, uri), Account: x.author, Rkey: rkey, Rev: "3lb2wjkv5nk2e", CID: "bafy" + rkey,
		Tags: tags, Langs: nil, IndexedAt: sortAt.Add(time.Second), Seq: x.seq + 1, Record: []byte(record),
	}
	x.posts[uri] = p
	return uri, write.PostChange{New: p, NewVisible: true}
}

func (x *index) remove(t testing.TB, uri string) {
	t.Helper()
	x.write(t, write.PostChange{Old: x.posts[uri], OldVisible: true})
	delete(x.posts, uri)
}

func uris(posts []postJSON) []string {
	out := []string{}
	for _, p := range posts {
		out = append(out, p.URI)
	}
	return out
}
