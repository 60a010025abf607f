package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// onePage returns an implementation of Posts that always returns the same page.
func onePage(p query.PostPage) func(context.Context, query.PostQuery) (query.PostPage, error) {
	return func(context.Context, query.PostQuery) (query.PostPage, error) { return p, nil }
}

func TestPostFormat(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	record := `{"text":"<b>&\u0000","createdAt":"yesterday","n":1.50}`
	row := query.PostRow{
		Key: event.NewKey(at, "at://x"), DID: author, Rkey: "x", CID: "bafy", Tags: []string{"art"}, IndexedAt: at, Record: []byte(record),
	}
	s := serve(t, fakeIndex{posts: onePage(query.PostPage{Rows: []query.PostRow{row}, Next: keyset.Start(), Previous: keyset.Start()})})
	a := s.get(t, "/v1/posts?tags=art")
	require.Equal(t, http.StatusOK, a.status)
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	var out postsJSON
	a.json(t, &out)
	cursor := out.Posts[0].Cursor
	body, _, _ := strings.Cut(string(a.body), `,"page"`)
	require.Equal(t, `{"posts":[{"uri":"at://did:plc:author/app.bsky.feed.post/x","cid":"bafy","did":"did:plc:author","rkey":"x",`+
		`"author":{"did":"did:plc:author","handle":null,"displayName":null,"avatar":null},`+
		`"tags":["art"],"langs":[],"createdAt":"yesterday","indexedAt":"2026-01-02T02:04:05.000000Z","sortAt":"2026-01-02T02:04:05.000000Z",`+
		`"record":`+record+`,"cursor":"`+cursor+`"}]`, body)
}

// TestPostsAreWrittenAsJSON compares appendJSON with encoding/json.
func TestPostsAreWrittenAsJSON(t *testing.T) {
	t.Parallel()
	hostile := []string{"", "art", `a"b\c`, "\x00\x1f\x7f", "<b>&", "caf\u00e9 \u2028 \U0001F984", "\xff\xfe"}
	var posts []postJSON
	for i, s := range hostile {
		at := utc(time.Unix(int64(i), 123456789))
		posts = append(posts, postJSON{
			URI: "at://" + s, CID: s, DID: s, Rkey: s, Author: authorJSON{s, textOrNull(s), textOrNull(hostile[0]), &s}, Tags: hostile[:i], Langs: hostile[i:], CreatedAt: null,
			IndexedAt: at, SortAt: at, Record: json.RawMessage(`{"n":1.50,"a":["<&>"]}`), Cursor: s,
		})
		posts[i].Tags = append([]string{}, posts[i].Tags...)
	}
	for n := range len(posts) + 1 {
		for _, end := range []recentEnd{{}, {Paginator: "p"}} {
			want, err := encode(recentJSON{Posts: append([]postJSON{}, posts[:n]...), recentEnd: end})
			require.NoError(t, err)
			var got response
			require.NoError(t, got.setPosts(slices.Values(posts[:n]), end))
			require.Equal(t, string(want), string(got.body))
		}
	}
}

func TestTimeFormat(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Unix(1767225599, 999_999_999), time.Date(12345, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 11, 9, 8, 7, 6, 5000, time.FixedZone("", -3600))} {
		require.Equal(t, at.UTC().Format(`"2006-01-02T15:04:05.000000Z"`), string(utc(at).appendJSON(nil)))
	}
}

// UnmarshalJSON lets tests read answers into the types of the API.
func (t *utc) UnmarshalJSON(b []byte) error { return (*time.Time)(t).UnmarshalJSON(b) }

func TestAcceptsGzip(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header string
		want   bool
	}{
		{"", false}, {"gzip", true}, {"GZip", true}, {"x-gzip", true}, {"br", false}, {"br, gzip", true}, {"gzip;q=0", false},
		{"gzip; q=0.000", false}, {"gzip;q=0.001", true}, {"gzip;q=0.5, identity;q=1", false}, {"identity, gzip;q=0.5", false},
		{"gzip;q=0.5, *;q=0", true}, {"*", true}, {"*;q=0", false}, {"*, gzip;q=0", false}, {"identity;q=0, *", true},
		{"gzip;q=nonsense", false}, {"gzip;q=2", false}, {"gzip;q=NaN", false}, {"gzip;q=-1", false}, {"gzip;level=9;q=1", true},
		{"deflate, gzip;q=1.0, *;q=0.5", true}, {"gzipped", false}, {",,gzip", true},
	} {
		require.Equal(t, c.want, acceptsGzip([]string{c.header}), "%q", c.header)
	}
	require.True(t, acceptsGzip([]string{"br", "gzip"}), "two headers")
	require.False(t, acceptsGzip(nil))
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header string
		want   bool
	}{
		{``, false}, {`"x"`, true}, {`W/"x"`, true}, {`"y"`, false}, {`"y", "x"`, true}, {`"y",W/"x"`, true}, {`*`, true}, {` * `, true},
		{`x`, false}, {`"x`, false}, {`"a,b", "x"`, true}, {`"y" , , "x"`, true}, {`"y"; "x"`, false}, {`W/`, false}, {`"X"`, false},
	} {
		require.Equal(t, c.want, matches([]string{c.header}, `"x"`), "%s", c.header)
	}
	require.True(t, matches([]string{`"y"`, `"x"`}, `"x"`), "two headers")
}

func TestConditional(t *testing.T) {
	t.Parallel()
	s := serve(t, fakeIndex{})
	for _, path := range []string{"/", "/openapi.yaml", "/v1/posts?tags=art", "/v1/getRecentRootPostsWithTags?tags=art", "/v1/status"} {
		plain, zipped := s.get(t, path), s.get(t, path, "Accept-Encoding", "gzip")
		require.Empty(t, plain.header.Get("Content-Encoding"))
		require.Equal(t, "gzip", zipped.header.Get("Content-Encoding"))
		require.Equal(t, plain.body, zipped.body)
		etag, zippedETag := plain.header.Get("ETag"), zipped.header.Get("ETag")
		require.NotEqual(t, etag, zippedETag, "a strong ETag belongs to one encoding")
		require.Equal(t, zippedETag, s.get(t, path, "Accept-Encoding", "gzip").header.Get("ETag"))
		for _, c := range []struct {
			name   string
			status int
			etag   string
			header []string
		}{
			{"same", 304, etag, []string{"If-None-Match", etag}},
			{"weak", 304, etag, []string{"If-None-Match", "W/" + etag}},
			{"in a list", 304, etag, []string{"If-None-Match", `"a", ` + etag}},
			{"any", 304, etag, []string{"If-None-Match", "*"}},
			{"same, compressed", 304, zippedETag, []string{"If-None-Match", zippedETag, "Accept-Encoding", "gzip"}},
			{"of the other encoding", 200, etag, []string{"If-None-Match", zippedETag}},
			{"other", 200, etag, []string{"If-None-Match", `"a"`}},
		} {
			a := s.get(t, path, c.header...)
			require.Equal(t, c.status, a.status, c.name)
			require.Equal(t, c.etag, a.header.Get("ETag"), c.name)
		}
		require.Equal(t, http.StatusNotModified, s.do(t, http.MethodHead, path, "If-None-Match", etag).status)
	}
}

func TestCreatedAt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ record, want string }{
		{`{}`, `null`},
		{`{"createdAt":"2026"}`, `"2026"`},
		{` { "a" : [ {"createdAt":"no"} ] , "createdAt" : "a\"b\\" , "b":"createdAt"}`, `"a\"b\\"`},
		{`{"createdAt":5}`, `null`}, {`{"createdAt":null}`, `null`}, {`{"createdAt":{"createdAt":"no"}}`, `null`},
		{`{"createdAt":["no"]}`, `null`}, {`{"createdat":"no"}`, `null`}, {`{"a":"createdAt","b":"no"}`, `null`},
		{`{"created\u0041t":"yes"}`, `"yes"`}, {`{"createdAt":"first","createdAt":"last"}`, `"last"`},
		{`{"createdAt":"first","createdAt":1}`, `null`}, {`{"createdAt":""}`, `""`}, {`["createdAt","no"]`, `null`}, {`"createdAt"`, `null`},
		{``, `null`}, {`{"createdAt":"open`, `null`},
		{`{"$type":"app.bsky.feed.post","createdAt":"a\"b","text":"t"}`, `"a\"b"`}, {`{"$type":"app.bsky.feed.post","createdAt":1}`, `null`},
		{`{"$type":"app.bsky.feed.post","createdAt":"first","createdAt":1}`, `null`},
		{`{"$type":"app.bsky.feed.post","createdAt":"first","created\u0041t":"last"}`, `"last"`},
		{`{"$type":"app.bsky.feed.post","createdAt":"open`, `null`},
	} {
		require.Equal(t, c.want, string(createdAt([]byte(c.record))), c.record)
	}
}

func FuzzCreatedAt(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"createdAt":"x"}],"createdAt":"2026-01-01T00:00:00Z","created\u0041t":true}`))
	f.Add([]byte(`{"$type":"app.bsky.feed.post","createdAt":"2026","a":"x"}`))
	f.Add([]byte(`[{}]`))
	f.Fuzz(func(t *testing.T, record []byte) {
		got := createdAt(record) // never panics
		var fields map[string]json.RawMessage
		if json.Unmarshal(record, &fields) != nil {
			return
		}
		want := "null"
		if v := string(fields["createdAt"]); strings.HasPrefix(v, `"`) {
			want = v
		}
		if string(got) != want {
			t.Fatalf("%s: got %s, want %s", record, got, want)
		}
	})
}

func TestFailures(t *testing.T) {
	t.Parallel()
	pgError := func(code string) error { return &pgconn.PgError{Code: code, Message: "secret"} }
	for _, c := range []struct {
		name string
		err  error
		want code
	}{
		{"bug", errors.New("secret"), codeInternal},
		{"SQL error", pgError("42601"), codeInternal},
		{"no permission", pgError("42501"), codeInternal},
		{"not migrated", errors.Join(store.ErrNotMigrated, pgError("42P01")), codeUnavailable},
		{"statement took too long", pgError("57014"), codeTimeout},
		{"request took too long", context.DeadlineExceeded, codeTimeout},
		{"shutdown", pgError("57P01"), codeUnavailable},
		{"too many connections", pgError("53300"), codeUnavailable},
		{"conflict on a standby", pgError("40001"), codeUnavailable},
		{"connection refused", &pgconn.ConnectError{}, codeUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, fakeIndex{posts: func(context.Context, query.PostQuery) (query.PostPage, error) { return query.PostPage{}, c.err }})
			for _, path := range []string{"/v1/posts?tags=art", "/v1/getRecentRootPostsWithTags?tags=art"} {
				p := s.get(t, path).requireProblem(t, c.want)
				require.NotContains(t, p.Detail, "secret")
			}
		})
	}
}

func TestPanicIsAnswered(t *testing.T) {
	t.Parallel()
	s := serve(t, fakeIndex{posts: func(context.Context, query.PostQuery) (query.PostPage, error) { panic("secret") }}, func(c *Config) { c.MaxInFlight = 1 })
	for range 3 { // each needs the only slot
		p := s.get(t, "/v1/posts?tags=art").requireProblem(t, codeInternal)
		require.NotContains(t, p.Detail, "secret")
	}
	require.EqualValues(t, 3, testutil.ToFloat64(s.handler.metrics.requests.WithLabelValues(routePosts, "500")))
	require.Zero(t, testutil.ToFloat64(s.handler.metrics.inFlight))
}

func TestOverload(t *testing.T) {
	t.Parallel()
	inside, leave := make(chan struct{}), make(chan struct{})
	s := serve(t, fakeIndex{posts: func(context.Context, query.PostQuery) (query.PostPage, error) {
		inside <- struct{}{}
		<-leave
		return query.PostPage{}, nil
	}}, func(c *Config) { c.MaxInFlight = 1 })
	done := make(chan int)
	go func() {
		res, err := http.Get(s.url + "/v1/posts?tags=art")
		if err != nil {
			done <- 0
			return
		}
		res.Body.Close()
		done <- res.StatusCode
	}()
	<-inside
	s.get(t, "/v1/posts?tags=art").requireProblem(t, codeOverloaded)
	close(leave)
	require.Equal(t, http.StatusOK, <-done)
}

// TestSlowClients: clients that request a large page and do not read it use up the budget for
// answers being sent, and no more.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const size = 20 << 20 // more than the socket buffers
	row := query.PostRow{Tags: []string{"art"}, Record: []byte(`{"text":"` + strings.Repeat("x", size) + `"}`)}
	s := serve(t, fakeIndex{posts: onePage(query.PostPage{Rows: []query.PostRow{row}})})
	var slow []net.Conn
	for s.handler.sending.used.Load()+size < s.handler.sending.max {
		before := s.handler.sending.used.Load()
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("GET /v1/posts?tags=art HTTP/1.1\r\nHost: x\r\n\r\n"))
		require.NoError(t, err)
		slow = append(slow, conn)
		poll.Until(t, 20*time.Second, func() (bool, string) {
			used := s.handler.sending.used.Load()
			return used > before, fmt.Sprint(used, " bytes being sent")
		})
	}
	require.Len(t, slow, 3)
	s.get(t, "/v1/posts?tags=art").requireProblem(t, codeOverloaded)
	require.Equal(t, http.StatusOK, s.get(t, "/v1/status").status, "small answers fit in the budget")
	for _, conn := range slow {
		conn.Close()
	}
	poll.Until(t, 20*time.Second, func() (bool, string) {
		used := s.handler.sending.used.Load()
		return used == 0, fmt.Sprint(used, " bytes being sent")
	})
}

func TestBudget(t *testing.T) {
	t.Parallel()
	b := budget{max: 10}
	require.True(t, b.take(25), "a single answer may exceed the budget")
	require.False(t, b.take(1))
	b.giveBack(25)
	require.True(t, b.take(4))
	require.True(t, b.take(6))
	require.False(t, b.take(1))
	require.EqualValues(t, 10, b.used.Load())
}

func TestClientGone(t *testing.T) {
	t.Parallel()
	inside, left := make(chan struct{}), make(chan struct{})
	s := serve(t, fakeIndex{posts: func(ctx context.Context, _ query.PostQuery) (query.PostPage, error) {
		close(inside)
		<-ctx.Done()
		defer close(left)
		return query.PostPage{}, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-inside
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/v1/posts?tags=art", nil)
	require.NoError(t, err)
	_, err = http.DefaultClient.Do(req)
	require.ErrorIs(t, err, context.Canceled)
	<-left
}

// TestMetricsExistAtZero counts the series of a handler that has not received a request.
func TestMetricsExistAtZero(t *testing.T) {
	t.Parallel()
	s := serve(t, fakeIndex{})
	for name, want := range map[string]int{
		"tagstream_api_requests_total":           len(routeNames) * 11,
		"tagstream_api_request_duration_seconds": len(routeNames),
		"tagstream_api_page_rows":                1,
		"tagstream_api_page_index_entries":       1,
		"tagstream_api_short_pages_total":        len(query.CutReasons),
		"tagstream_api_requests_in_flight":       1,
	} {
		n, err := testutil.GatherAndCount(s.registry, name)
		require.NoError(t, err)
		require.Equal(t, want, n, name)
	}
	problems, err := testutil.GatherAndLint(s.registry)
	require.NoError(t, err)
	require.Empty(t, problems)
}

// Invariant: the published spec describes what the code does, under any path, and the answers of
// the proxy in front, which web pages can read. See also TestRoutesAreDocumented,
// TestCodesAreDocumented, TestSpecServesGenerators, TestBehindAPathPrefix and TestProxyAnswers.
func TestIndexAndSpec(t *testing.T) {
	t.Parallel()
	s := serve(t, fakeIndex{})
	require.Equal(t, string(openapi), string(s.get(t, "/openapi.yaml").body))
	var out indexJSON
	s.get(t, "/").json(t, &out)
	require.Len(t, out.Routes, len(s.handler.routes()))
	doc, _ := spec()
	here, err := url.Parse("https://host.example/some/prefix/")
	require.NoError(t, err)
	for i, r := range s.handler.routes() {
		path, err := here.Parse(out.Routes[i].Path)
		require.NoError(t, err)
		require.Equal(t, "/some/prefix"+r.path, path.Path, "relative, under any prefix")
	}
	server, err := here.Parse(doc.Servers[0].URL)
	require.NoError(t, err)
	require.Equal(t, here, server, "the paths are relative to the document")
}

// TestLag observes the status of an index several times. Repeated positions from ingest do not make
// the index fresher, only new events do.
func TestLag(t *testing.T) {
	t.Parallel()
	at := func(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }
	// status returns a status in which events up to source are indexed and the indexer is running.
	status := func(now, source float64, sourceSeq, seq, last uint64) query.Status {
		return query.Status{
			Checkpoint: store.Checkpoint{Seq: seq, Source: event.Position{Host: "h", Seq: sourceSeq, Time: at(source)}},
			StreamLast: last, SeenAt: at(now - 1), Now: at(now),
		}
	}
	away := func(s query.Status) query.Status {
		s.SeenAt = s.Now.Add(-time.Minute)
		return s
	}
	const notSilent = -1
	type observation struct {
		s        query.Status
		messages uint64
		seconds  float64
		silent   float64
	}
	for _, c := range []struct {
		name         string
		observations []observation
	}{
		{"busy network", []observation{
			{status(10, 9.8, 100, 50, 50), 0, 0.2, notSilent},
			{status(12, 11.8, 120, 60, 60), 0, 0.2, notSilent},
			{status(14, 13.75, 140, 70, 75), 5, 0.25, notSilent},
			{status(90, 89.75, 940, 370, 370), 0, 0.25, notSilent},
		}},
		{"silence, the position repeated", []observation{
			{status(100, 20, 100, 50, 50), 0, 80, notSilent}, // may have moved just before
			{status(110, 20, 100, 51, 51), 0, 90, notSilent},
			{status(115, 20, 100, 52, 52), 0, 95, 20},
			{status(200, 20, 100, 60, 60), 0, 180, 20},
		}},
		{"a post after silence", []observation{
			{status(100, 20, 100, 50, 50), 0, 80, notSilent},
			{status(116, 20, 100, 52, 52), 0, 96, 20},
			{status(117, 116.8, 101, 53, 53), 0, 0.2, notSilent},
			{status(130, 116.8, 101, 54, 54), 0, 13.2, notSilent},
			{status(134, 116.8, 101, 54, 54), 0, 17.2, 116.8},
		}},
		{"archive being replayed, the indexer keeping up", []observation{
			{status(1000, 1, 10, 50, 50), 0, 999, notSilent},
			{status(1020, 5, 20, 80, 80), 0, 1015, notSilent},
			{status(1040, 9, 30, 90, 90), 0, 1031, notSilent},
		}},
		{"indexer behind", []observation{
			{status(1000, 400, 10, 50, 5000), 4950, 600, notSilent},
			{status(1020, 400, 10, 50, 5000), 4950, 620, notSilent},
		}},
		{"ingest away", []observation{
			{status(100, 99.8, 10, 50, 50), 0, 0.2, notSilent},
			{status(160, 99.8, 10, 50, 50), 0, 60.2, 99.8},
			{status(460, 99.8, 10, 50, 50), 0, 360.2, 99.8},
		}},
		{"indexer away", []observation{
			{away(status(100, 99.8, 10, 50, 50)), 0, 0.2, notSilent},
			{away(status(160, 99.8, 10, 50, 50)), 0, 60.2, notSilent},
		}},
		// Then everything that the api reads is as old as the standby, except for the clock.
		{"reading from a standby that lags by 30 s", []observation{
			{away(status(100, 69.8, 100, 50, 50)), 0, 30.2, notSilent},
			{away(status(102, 71.8, 120, 60, 60)), 0, 30.2, notSilent},
		}},
		{"reading from a standby that no longer replays", []observation{
			{status(100, 99.8, 10, 50, 50), 0, 0.2, notSilent},
			{away(status(400, 99.8, 10, 50, 50)), 0, 300.2, notSilent},
		}},
		{"upstream's clock ahead", []observation{{status(10, 12, 10, 50, 50), 0, 0, notSilent}}},
		{"heartbeat behind", []observation{{status(10, 9.5, 10, 50, 40), 0, 0.5, notSilent}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var f freshness
			for i, l := range c.observations {
				lag, silent := f.observe(l.s)
				require.Equal(t, l.messages, lag.Messages, "observation %d", i)
				require.InDelta(t, l.seconds, *lag.Seconds, 1e-9, "observation %d", i)
				if l.silent == notSilent {
					require.Nil(t, silent, "observation %d", i)
				} else {
					require.Equal(t, at(l.silent), time.Time(*silent), "observation %d", i)
				}
			}
		})
	}
	var f freshness
	lag, silent := f.observe(query.Status{Now: t0})
	require.Nil(t, lag.Seconds, "nothing indexed")
	require.Nil(t, silent)
}

// TestETags: tags are equal if and only if the bodies and the keys are equal.
func TestETags(t *testing.T) {
	t.Parallel()
	one, same, other := newETags(testCodec(t, "k1")), newETags(testCodec(t, "k1")), newETags(testCodec(t, "other"))
	body := bytes.Repeat([]byte("a page "), 1000)
	require.Equal(t, one.of(body), same.of(bytes.Clone(body)))
	require.NotEqual(t, one.of(body), other.of(body))
	seen := map[string]bool{one.of(body): true, one.of(nil): true}
	for i := range 100 {
		changed := bytes.Clone(body)
		changed[i*70] ^= 1
		seen[one.of(changed)] = true
		seen[one.of(body[:len(body)-1-i])] = true
	}
	require.Len(t, seen, 202)
}
