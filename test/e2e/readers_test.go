package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	neturl "net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/test/model"
)

var (
	readersSeed = flag.Uint64("readers.seed", 1, "the seed of TestReaders' history and readers")
	readersFor  = flag.Duration("readers.for", 10*time.Second, "how long TestReaders writes and reads")
)

const (
	readers = 50
	// tagReaders is the number of them that page through the tags.
	tagReaders = 5
	// offsetReaders is the number of readers that page with OFFSET at the same time, whose errors
	// must be found.
	offsetReaders = 2

	// readersPosts is the number of posts, readersBacklog the number of events before the readers
	// start.
	readersPosts   = 2500
	readersBacklog = 4000
	// Up to writtenAtOnce events are written every writePause.
	writtenAtOnce = 16
	writePause    = 20 * time.Millisecond
	// maxPages bounds a reader's walk.
	maxPages = 25
)

// TestReaders lets fifty readers page through random queries, in both directions, while posts are
// created, edited, deleted, hidden and shown all over their lists, through the stream and the
// indexer. What they saw is then compared with the history: no post that matched throughout a walk
// may be missing, none may be repeated, and all must be in order. The test must also find the
// errors of readers that page with OFFSET; otherwise it proves nothing.
//
// Invariant: readers that page while posts arrive, change, leave, hide and return neither miss nor
// repeat a post that was there throughout.
func TestReaders(t *testing.T) {
	t.Parallel()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: go test ./test/e2e -run '^TestReaders$' -readers.seed=%d -readers.for=%v", *readersSeed, *readersFor)
		}
	})
	b := newIndexBench(t, natstest.Server(t))
	s := &readingSite{url: b.api(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: readers}, Timeout: indexWait}}
	b.indexer(100)

	crowd, line, last := model.NewCrowd(*readersSeed, readersPosts, time.Date(2026, 8, 20, 0, 0, 0, 0, time.UTC), time.Second), model.NewTimeline(), uint64(0)
	write := func(n int) {
		events := crowd.Take(n)
		for _, e := range events {
			last++
			line.ApplyEvent(last, e)
		}
		require.Equal(t, last, b.publish(encoded(t, events)...))
	}
	write(readersBacklog)
	b.await(s.url, last)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for i := range readers + offsetReaders {
		rng := rand.New(rand.NewPCG(*readersSeed, uint64(i+10)))
		read := s.readPosts
		switch {
		case i < tagReaders:
			read = s.readTags
		case i >= readers:
			conn := connect(t, b.reader)
			read = func(ctx context.Context, rng *rand.Rand) error { return s.readByOffset(ctx, rng, conn) }
		}
		group.Go(func() {
			for ctx.Err() == nil {
				if err := read(ctx, rng); err != nil {
					t.Errorf("reader %d: %v", i, err)
					return
				}
			}
		})
	}
	rng := rand.New(rand.NewPCG(*readersSeed, 1))
	var v verdicts
	pause, start := time.NewTicker(writePause), time.Now()
	for time.Since(start) < *readersFor || !v.conclusive() && time.Since(start) < *readersFor+indexWait {
		write(1 + rng.IntN(writtenAtOnce))
		v.judge(t, line, s.take())
		<-pause.C
	}
	cancel()
	group.Wait()
	v.judge(t, line, s.take())
	t.Logf("%d events, the index changing in %d walks; posts: %+v; tags: %+v; with OFFSET: %+v", last, v.moved, v.posts, v.tags, v.byOffset)
	require.True(t, v.conclusive(), "this run proves nothing: too little was due, or nothing changed, or no error of OFFSET was found")
}

// seen is what readers saw.
type seen struct {
	walks, offsetWalks []model.Walk
}

// Verdicts on all walks.
type verdicts struct {
	posts, tags, byOffset model.Verdict
	moved                 int // walks during which the index changed
}

// conclusive reports whether there was enough to judge, and whether errors of OFFSET were found.
func (v *verdicts) conclusive() bool {
	return v.posts.Due > 20*readers && v.moved > v.posts.Walks/2 && v.tags.Due > tagReaders &&
		v.byOffset.Repeated > 0 && v.byOffset.Missed > 0
}

// judge reports the errors of completed walks.
func (v *verdicts) judge(t *testing.T, line *model.Timeline, s seen) {
	t.Helper()
	for _, w := range s.walks {
		verdict, err := line.Judge(w)
		if err != nil {
			t.Errorf("tags %t, posts of %v, newer %t, from %v, %d rows, ended %t: %v", w.Tags, w.Query, w.Newer, w.From, len(w.Seen), w.Ended, err)
		}
		if w.Tags {
			v.tags.Add(verdict)
			continue
		}
		v.posts.Add(verdict)
		if w.Last > w.First {
			v.moved++
		}
	}
	for _, w := range s.offsetWalks {
		verdict, _ := line.Judge(w)
		v.byOffset.Add(verdict)
	}
}

// readingSite is the API that readers read, and what they saw.
type readingSite struct {
	url    string
	client *http.Client

	mu   sync.Mutex // guards what follows
	seen seen
}

// take returns what was seen since the last call.
func (s *readingSite) take() seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.seen
	s.seen = seen{}
	return out
}

// get also works after the time is over: readers then finish their walks.
func (s *readingSite) get(ctx context.Context, path string, params neturl.Values, into any) error {
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, s.url+path+"?"+params.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", req.URL.RequestURI(), res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("GET %s: %w", req.URL.RequestURI(), err)
	}
	return nil
}

// seq returns the index's checkpoint.
func (s *readingSite) seq(ctx context.Context) (uint64, error) {
	var status struct {
		Checkpoint struct{ Seq uint64 }
	}
	err := s.get(ctx, "/v1/status", nil, &status)
	return status.Checkpoint.Seq, err
}

// readPage has the fields of a page that readers use.
type readPage struct {
	Posts []struct {
		URI    string
		SortAt time.Time
		Cursor string
	}
	Tags []struct {
		Tag   string
		Posts int64
	}
	Page struct {
		HasNext, HasPrevious bool
		Next, Previous       string
	}
}

// ends returns whether more follows in a direction, and the token to continue with.
func (p *readPage) ends(newer bool) (more bool, token string) {
	if newer {
		return p.Page.HasPrevious, p.Page.Previous
	}
	return p.Page.HasNext, p.Page.Next
}

func (p *readPage) row(i int) model.Row {
	if p.Tags != nil {
		return model.Row{Name: p.Tags[i].Tag, Number: p.Tags[i].Posts}
	}
	return model.Row{Name: p.Posts[i].URI, Number: p.Posts[i].SortAt.UnixMicro()}
}

// sized returns the parameters of a page of a fixed or random size, with either parameter name.
func sized(rng *rand.Rand, newer bool, token string) neturl.Values {
	relay, name := "first", "after"
	if newer {
		relay, name = "last", "before"
	}
	params := neturl.Values{}
	if token != "" {
		params.Set(name, token)
	}
	if token != "" && rng.IntN(2) == 0 {
		relay = "limit"
	}
	params.Set(relay, strconv.Itoa(1+rng.IntN(40)))
	return params
}

// randomQuery returns a query for a crowd's posts, and its parameters.
func randomQuery(rng *rand.Rand) (model.Query, neturl.Values) {
	tags := model.CrowdTags()
	rng.Shuffle(len(tags), func(i, j int) { tags[i], tags[j] = tags[j], tags[i] })
	n := 1 + rng.IntN(3)
	q := model.Query{Tags: tags[:n]}
	params := neturl.Values{}
	if rng.IntN(4) == 0 {
		q.Tags = append(q.Tags[:n:n], fmt.Sprintf("rare%d", rng.IntN(300)))
	}
	switch rng.IntN(5) {
	case 0:
		q.All, q.Tags = q.Tags[:min(n, 2)], nil
	case 1:
		q.All = tags[n : n+1]
	}
	if rng.IntN(4) == 0 {
		q.None = tags[n+1 : n+2+rng.IntN(2)]
	}
	if rng.IntN(4) == 0 {
		q.Langs = [][]string{{"en"}, {"pt", "ja"}, {"en-us", "es"}}[rng.IntN(3)]
	}
	at := func() time.Time {
		return time.Date(2026, 8, 20, 0, 0, 0, 0, time.UTC).Add(time.Duration(rng.IntN(readersBacklog*6/5)) * time.Second)
	}
	if rng.IntN(5) == 0 {
		q.Since = at()
		params.Set("since", q.Since.Format(time.RFC3339))
	}
	if rng.IntN(5) == 0 {
		q.Until = at()
		params.Set("until", q.Until.Format(time.RFC3339))
	}
	for name, values := range map[string][]string{"tags": q.Tags, "all": q.All, "none": q.None, "lang": q.Langs} {
		if values != nil {
			params[name] = values
		}
	}
	return q, params
}

// readPosts walks through one list from an end, and then from a random row, in either direction.
func (s *readingSite) readPosts(ctx context.Context, rng *rand.Rand) error {
	q, params := randomQuery(rng)
	page, err := s.walk(ctx, rng, params, "", model.Walk{Query: q, Newer: rng.IntN(2) == 0})
	if err != nil || len(page.Posts) == 0 || rng.IntN(2) == 0 {
		return err
	}
	i := rng.IntN(len(page.Posts))
	from := page.row(i)
	_, err = s.walk(ctx, rng, params, page.Posts[i].Cursor, model.Walk{Query: q, Newer: rng.IntN(2) == 0, From: &from})
	return err
}

// errNoProgress means that a page returned the token of its request.
var errNoProgress = errors.New("a page makes no progress")

// walk reads page after page and records the rows. It returns the last page.
func (s *readingSite) walk(ctx context.Context, rng *rand.Rand, query neturl.Values, token string, w model.Walk) (page readPage, err error) {
	if w.First, err = s.seq(ctx); err != nil {
		return page, err
	}
	for range 1 + rng.IntN(maxPages) {
		params := sized(rng, w.Newer, token)
		for name, values := range query {
			params[name] = values
		}
		path := "/v1/posts"
		if w.Tags {
			path = "/v1/tags"
		}
		page = readPage{}
		if err := s.get(ctx, path, params, &page); err != nil {
			return page, err
		}
		n := len(page.Posts) + len(page.Tags)
		for i := range n {
			if w.Newer {
				i = n - 1 - i
			}
			w.Seen = append(w.Seen, page.row(i))
		}
		more, next := page.ends(w.Newer)
		if w.Ended = !more; w.Ended || ctx.Err() != nil {
			break
		}
		if next == token {
			return page, fmt.Errorf("%w: %v", errNoProgress, params)
		}
		token = next
	}
	if w.Last, err = s.seq(ctx); err != nil {
		return page, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.walks = append(s.seen.walks, w)
	return page, nil
}

// readTags walks through the list of tags from an end.
func (s *readingSite) readTags(ctx context.Context, rng *rand.Rand) error {
	_, err := s.walk(ctx, rng, nil, "", model.Walk{Tags: true, Newer: rng.IntN(2) == 0})
	return err
}

func connect(t *testing.T, o store.Options) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), o.URL)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) })
	return conn
}

// readByOffset walks through one tag's posts the wrong way: newest first, with OFFSET.
func (s *readingSite) readByOffset(ctx context.Context, rng *rand.Rand, conn *pgx.Conn) error {
	const checkpoint = `SELECT seq FROM ` + store.Live + `.checkpoint`
	const list = `
		SELECT 'at://' || a.did || '/' || $4 || '/' || p.rkey, p.key
		  FROM (SELECT key FROM ` + store.Live + `.post_tags
		         WHERE tag_id = (SELECT id FROM ` + store.Live + `.tags WHERE name = $1) ORDER BY key DESC LIMIT $2 OFFSET $3) AS page
		  JOIN ` + store.Live + `.posts p USING (key) JOIN ` + store.Live + `.accounts a ON a.id = p.account_id
		 ORDER BY p.key DESC`
	w := model.Walk{Query: model.Query{Tags: model.CrowdTags()[:1]}}
	late := ctx
	ctx = context.WithoutCancel(ctx)
	if err := conn.QueryRow(ctx, checkpoint).Scan(&w.First); err != nil {
		return err
	}
	limit := 10 + rng.IntN(30)
	for range maxPages {
		rows, err := conn.Query(ctx, list, w.Query.Tags[0], limit, len(w.Seen), event.Collection)
		if err != nil {
			return err
		}
		var uri string
		var key [16]byte
		n := 0
		if _, err := pgx.ForEachRow(rows, []any{&uri, &key}, func() error {
			n++
			w.Seen = append(w.Seen, model.Row{Name: uri, Number: event.Key(key).SortAt().UnixMicro()})
			return nil
		}); err != nil {
			return err
		}
		if w.Ended = n < limit; w.Ended || late.Err() != nil {
			break
		}
		// At the same pace as the other readers.
		if _, err := s.seq(ctx); err != nil {
			return err
		}
	}
	if err := conn.QueryRow(ctx, checkpoint).Scan(&w.Last); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen.offsetWalks = append(s.seen.offsetWalks, w)
	return nil
}
