package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/site"
)

const (
	// pagePosts is the api's default, pageLimit its maximum.
	pagePosts, pageLimit = 50, 100
	// mainClients is the number of clients to which the bars apply.
	mainClients = 8
	askLimit    = 10 * time.Second
	// feedPublisher is the account in the feeds file.
	feedPublisher = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
)

// asked is the result of the clients of one server in one turn.
type asked struct {
	n    int
	took time.Duration
	all  []time.Duration
}

func (a asked) perSecond() float64 { return float64(a.n) / a.took.Seconds() }

func (a asked) p99() float64 {
	slices.Sort(a.all)
	return float64(a.all[(len(a.all)*99+99)/100-1]) / float64(time.Millisecond)
}

// ask lets clients request paths in turn for some time, each the next when it has the answer. They
// only find the end of answers: the machine's cores are for the servers.
func ask(ctx context.Context, base string, gzip bool, clients int, how time.Duration, paths ...string) (out asked, err error) {
	addr := strings.TrimPrefix(base, "http://")
	headers := " HTTP/1.1\r\nHost: " + addr + "\r\n"
	if gzip {
		headers += "Accept-Encoding: gzip\r\n"
	}
	headers += "\r\n"
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	for client := range clients {
		group.Go(func() error {
			var dialer net.Dialer
			conn, err := dialer.DialContext(ctx, "tcp", addr)
			if err != nil {
				return err
			}
			defer conn.Close()
			in := bufio.NewReaderSize(conn, 64<<10)
			var times []time.Duration
			next := client * len(paths) / clients
			for now := time.Now(); now.Sub(began) < how && ctx.Err() == nil; next++ {
				if err := conn.SetDeadline(now.Add(askLimit)); err != nil {
					return err
				}
				if _, err := io.WriteString(conn, "GET "+paths[next%len(paths)]+headers); err != nil {
					return err
				}
				if err := skipAnswer(in); err != nil {
					return err
				}
				then := time.Now()
				times, now = append(times, then.Sub(now)), then
			}
			mu.Lock()
			defer mu.Unlock()
			out.all = append(out.all, times...)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return out, fmt.Errorf("ask for %s%s: %w", base, paths[0], err)
	}
	out.n, out.took = len(out.all), time.Since(began)
	if out.n == 0 {
		return out, errors.New("no answer came in time")
	}
	return out, nil
}

// skipAnswer skips one answer, which must have status 200.
func skipAnswer(in *bufio.Reader) error {
	length, chunked := 0, false
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		text := strings.TrimSpace(string(line))
		if first && !strings.Contains(text, " 200 ") {
			return fmt.Errorf("the answer is %s", text)
		}
		if text == "" {
			break
		}
		if value, ok := strings.CutPrefix(text, "Content-Length: "); ok {
			if length, err = strconv.Atoi(value); err != nil {
				return err
			}
		}
		chunked = chunked || text == "Transfer-Encoding: chunked"
	}
	for chunked {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 32)
		if err != nil {
			return err
		}
		if _, err := in.Discard(int(size) + 2); err != nil {
			return err
		}
		chunked = size > 0
	}
	_, err := in.Discard(length)
	return err
}

// page has the fields of an answer of /v1/posts that this package uses.
type page struct {
	Posts []struct {
		URI    string `json:"uri"`
		Cursor string `json:"cursor"`
	} `json:"posts"`
	Page struct {
		HasNext  bool   `json:"hasNext"`
		Next     string `json:"next"`
		Previous string `json:"previous"`
	} `json:"page"`
}

func getPage(api, query string) (p page, err error) {
	status, body := process.Fetch(api + pathOf(query))
	if status != 200 {
		return p, fmt.Errorf("ask the api for %s: status %d: %s", query, status, body)
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		return p, fmt.Errorf("read the api's answer to %s: %w", query, err)
	}
	return p, nil
}

func pathOf(query string) string { return "/v1/posts?" + query }

// queryOf returns a list's tags and, unless empty, a parameter with its value.
func queryOf(tags []string, limit int, name, value string) string {
	v := url.Values{"tags": tags, "limit": {strconv.Itoa(limit)}}
	if value != "" {
		v.Set(name, value)
	}
	return v.Encode()
}

// measureAPI measures pages next to those of a minimal handler, and next to the same statements in
// pgbench.
func (r *runner) measureAPI(ctx context.Context) error {
	if err := r.pg.Do(ctx, func(conn *pgx.Conn) error { _, err := conn.Exec(ctx, "VACUUM ANALYZE"); return err }); err != nil {
		return err
	}
	var tags []string
	if err := r.pg.Do(ctx, func(conn *pgx.Conn) (err error) {
		rows, _ := conn.Query(ctx, "SELECT name FROM tagstream.tags ORDER BY posts DESC, name LIMIT 5")
		tags, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}); err != nil {
		return fmt.Errorf("look up the commonest tags: %w", err)
	}
	r.feeds = filepath.Join(r.dir, "feeds.yaml")
	feeds := fmt.Sprintf("publisher: %s\nfeeds:\n  - {rkey: hot, name: Hot, query: %q}\n", feedPublisher, url.Values{"tags": tags[:1]}.Encode())
	if err := os.WriteFile(r.feeds, []byte(feeds), 0o600); err != nil {
		return err
	}
	if err := r.startAPI(ctx); err != nil {
		return err
	}
	for _, n := range []int{1, len(tags)} {
		for _, clients := range r.cfg.Clients {
			if err := r.measurePages(ctx, tags[:n], clients); err != nil {
				return err
			}
		}
	}
	for _, measure := range []func(context.Context, []string) error{r.measureDepth, r.measureSkeleton, r.measureStart} {
		if err := measure(ctx, tags[:1]); err != nil {
			return err
		}
	}
	return nil
}

// measureSkeleton measures first pages of a Bluesky feed, next to pgbench with a statement that reads
// only their at-uris.
func (r *runner) measureSkeleton(ctx context.Context, tags []string) error {
	script, err := r.script(ctx, "skeleton", query.Statement{Args: []any{tags[0], pagePosts + 1}, SQL: `
		SELECT 'at://' || a.did || '/app.bsky.feed.post/' || p.rkey
		  FROM (SELECT key FROM post_tags WHERE tag_id = (SELECT id FROM tags WHERE name = $1) ORDER BY key DESC LIMIT $2) AS k
		  JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id ORDER BY key DESC`})
	if err != nil {
		return err
	}
	path := "/xrpc/app.bsky.feed.getFeedSkeleton?feed=at://" + feedPublisher + "/app.bsky.feed.generator/hot"
	f := Figure{Name: fmt.Sprintf("feed skeletons of %d posts, c=%d", pagePosts, mainClients), Unit: "/s", Peer: "pgbench, only their at-uris"}
	err = r.turns(ctx, func() error {
		ours, err := ask(ctx, r.apiURL, false, mainClients, r.cfg.Turn, path)
		if err != nil {
			return err
		}
		theirs, err := r.pgbench(ctx, script, mainClients)
		f.Ours, f.Theirs = append(f.Ours, ours.perSecond()), append(f.Theirs, theirs)
		return err
	})
	r.figure(f)
	return err
}

// measureStart measures the time from the start of a process to its first answer with a page.
func (r *runner) measureStart(ctx context.Context, tags []string) error {
	f := Figure{Name: fmt.Sprintf("start to first page of %d posts", pagePosts), Unit: " ms", Peer: "the minimal handler's"}
	start := func(run func() (*process.Program, string, error), into *[]float64) func() error {
		return func() error {
			began := time.Now()
			p, base, err := run()
			if err != nil {
				return err
			}
			defer p.End()
			if err := awaitAnswer(ctx, p, base+pathOf(queryOf(tags, pagePosts, "", ""))); err != nil {
				return err
			}
			*into = append(*into, float64(time.Since(began))/float64(time.Millisecond))
			return p.Terminate()
		}
	}
	err := r.turns(ctx, start(func() (*process.Program, string, error) { return r.runAPI(r.pg) }, &f.Ours), start(r.runHandler, &f.Theirs))
	r.figure(f)
	return err
}

// measurePages measures first pages of one list with a number of clients.
func (r *runner) measurePages(ctx context.Context, tags []string, clients int) error {
	script, err := r.pgbenchScript(ctx, tags)
	if err != nil {
		return err
	}
	path := pathOf(queryOf(tags, pagePosts, "", ""))
	kind := fmt.Sprintf("pages of %d posts, %s, c=%d", pagePosts, map[bool]string{true: "one tag", false: "any of five"}[len(tags) == 1], clients)
	ofBench := Figure{Name: kind, Unit: "/s", Peer: "pgbench, the same statements"}
	ofHandler := Figure{Name: kind, Unit: "/s", Peer: "a minimal handler of one statement"}
	tail := Figure{Name: kind + ", p99", Unit: " ms", Peer: "the minimal handler's"}
	zipped := Figure{Name: kind + ", gzip", Unit: "/s", Peer: "our plain page"}
	if clients == mainClients {
		ofBench.Bar, ofHandler.Bar, tail.Bar, tail.AtMost, zipped.Bar = .75, .9, 1.2, true, .9
		if len(tags) == 1 {
			ofBench.Bar = .65
		}
	}
	spend := func(what string, n int, worked map[string]time.Duration) {
		if clients == mainClients || len(r.cfg.Clients) == 1 {
			r.spend(what, n, worked)
		}
	}
	turn := func(base string, gzip bool, program *process.Program, into *[]float64) (asked, error) {
		var got asked
		worked, err := r.worked(func() (err error) {
			got, err = ask(ctx, base, gzip, clients, r.cfg.Turn, path)
			return err
		}, func() *process.Program { return program })
		if err != nil {
			return got, err
		}
		*into = append(*into, got.perSecond())
		what := fmt.Sprintf("page of %d tags by the %s", len(tags), program.Name)
		if gzip {
			what += ", gzip"
		}
		spend(what, got.n, worked)
		return got, nil
	}
	for _, base := range []string{r.apiURL, r.handlerURL} { // for connections, and plans of the statements
		if _, err := ask(ctx, base, false, clients, r.cfg.Turn/2, path); err != nil {
			return err
		}
	}
	err = r.turns(ctx, func() error {
		ours, err := turn(r.apiURL, false, r.api, &ofHandler.Ours)
		if err != nil {
			return err
		}
		theirs, err := turn(r.handlerURL, false, r.handler, &ofHandler.Theirs)
		if err != nil {
			return err
		}
		tail.Ours, tail.Theirs = append(tail.Ours, ours.p99()), append(tail.Theirs, theirs.p99())
		var rate float64
		worked, err := r.worked(func() (err error) {
			rate, err = r.pgbench(ctx, script, clients)
			return err
		})
		if err != nil {
			return err
		}
		spend(fmt.Sprintf("page of %d tags by pgbench", len(tags)), int(rate*r.benchTurn().Seconds()), worked)
		ofBench.Ours, ofBench.Theirs = append(ofBench.Ours, ours.perSecond()), append(ofBench.Theirs, rate)
		zipped.Theirs = append(zipped.Theirs, ours.perSecond())
		_, err = turn(r.apiURL, true, r.api, &zipped.Ours)
		return err
	})
	for _, f := range []Figure{ofBench, ofHandler, tail, zipped} {
		r.figure(f)
	}
	return err
}

// walk reads a list until it has passed enough posts. It returns the paths of full pages, of which
// the first is the list's first page, and the number of posts that it passed.
func walk(api string, tags []string, enough int) (paths []string, passed int, err error) {
	for token := ""; passed <= enough; {
		p, err := getPage(api, queryOf(tags, pageLimit, "after", token))
		if err != nil {
			return nil, 0, err
		}
		if len(p.Posts) >= pagePosts {
			paths = append(paths, pathOf(queryOf(tags, pagePosts, "after", token)))
		}
		passed += len(p.Posts)
		if token = p.Page.Next; !p.Page.HasNext {
			break
		}
	}
	if len(paths) == 0 {
		return nil, 0, fmt.Errorf("the list of %v has no full page", tags)
	}
	return paths, passed, nil
}

// measureDepth measures a deep page next to the first one.
func (r *runner) measureDepth(ctx context.Context, tags []string) error {
	paths, passed, err := walk(r.apiURL, tags, r.cfg.Depth)
	if err != nil {
		return err
	}
	f := Figure{Name: fmt.Sprintf("page behind %d posts", passed), Unit: "/s", Peer: "the first page", Bar: .9}
	err = r.turns(ctx, func() error {
		ours, err := ask(ctx, r.apiURL, false, mainClients, r.cfg.Turn, paths[len(paths)-1])
		if err != nil {
			return err
		}
		theirs, err := ask(ctx, r.apiURL, false, mainClients, r.cfg.Turn, paths[0])
		f.Ours, f.Theirs = append(f.Ours, ours.perSecond()), append(f.Theirs, theirs.perSecond())
		return err
	})
	r.figure(f)
	return err
}

// pgbenchScript writes the statements of a first page, like the api's, for pgbench.
func (r *runner) pgbenchScript(ctx context.Context, tags []string) (path string, err error) {
	var statements []query.Statement
	q := query.PostQuery{Tags: tags, From: keyset.Start(), Direction: keyset.Forward, Limit: pagePosts}
	if _, err := r.index.TracePosts(ctx, q, func(s query.Statement) { statements = append(statements, s) }); err != nil {
		return "", err
	}
	return r.script(ctx, fmt.Sprint("page-", len(tags)), statements...)
}

// script writes statements for pgbench.
func (r *runner) script(ctx context.Context, name string, statements ...query.Statement) (path string, err error) {
	text := "\\startpipeline\n"
	for _, s := range statements {
		sql, err := r.index.Literal(ctx, s)
		if err != nil {
			return "", err
		}
		text += strings.Join(strings.Fields(sql), " ") + ";\n"
	}
	text += "\\endpipeline\n"
	path = filepath.Join(r.dir, name+".sql")
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// benchTurn is how long pgbench runs: it needs whole seconds.
func (r *runner) benchTurn() time.Duration { return max(r.cfg.Turn.Round(time.Second), time.Second) }

// pgbench returns how often per second it runs a script, with the settings of the api's sessions.
func (r *runner) pgbench(ctx context.Context, script string, clients int) (float64, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(r.binaries.Dir, "pgbench"), "-n", "-M", "prepared", "-f", script, "-c", strconv.Itoa(clients), "-j", "2",
		"-T", strconv.Itoa(int(r.benchTurn().Seconds())), r.pg.URL(site.APIRole))
	cmd.Env = append(os.Environ(), "PGOPTIONS=-c search_path=tagstream -c default_transaction_read_only=on -c default_transaction_isolation=repeatable\\ read"+
		" -c jit=off -c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_sort=off -c enable_memoize=off -c max_parallel_workers_per_gather=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("run pgbench: %w: %s", err, out)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if value, ok := strings.CutPrefix(line, "tps = "); ok {
			return strconv.ParseFloat(strings.Fields(value)[0], 64)
		}
	}
	return 0, fmt.Errorf("pgbench gives no rate: %s", out)
}
