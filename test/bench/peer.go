package bench

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	upstream "github.com/bluesky-social/jetstream"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/klauspost/compress/gzip"

	"github.com/tagstream/tagstream/pkg/event"
)

// The peers that run as separate processes, started by the command with -peer.
const (
	peerClient  = "client"
	peerHandler = "handler"
)

// Peer runs one of them.
func Peer(ctx context.Context, args []string, out io.Writer) error {
	switch {
	case len(args) == 3 && args[0] == peerClient:
		return discard(ctx, args[1], args[2], out)
	case len(args) == 3 && args[0] == peerHandler:
		return handle(ctx, args[1], args[2])
	}
	return fmt.Errorf("no peer is %q", args)
}

// clientResult is the output of discard.
type clientResult struct {
	Events    int
	Took, CPU time.Duration
}

// discard reads and decodes a host's archive up to an event with the official client, and discards
// it.
func discard(ctx context.Context, host, upTo string, out io.Writer) error {
	end, err := strconv.ParseUint(upTo, 10, 64)
	if err != nil {
		return err
	}
	c, err := upstream.Subscribe(host, upstream.WithAfterSeq(0), upstream.WithCollection(event.Collection),
		upstream.WithKinds([]upstream.Kind{upstream.KindCommit, upstream.KindAccount, upstream.KindSync}))
	if err != nil {
		return fmt.Errorf("subscribe to the Jetstream server: %w", err)
	}
	defer c.Close()
	var r clientResult
	began := time.Now()
	for batch, err := range c.Events(ctx) {
		if err != nil {
			return fmt.Errorf("read the Jetstream server: %w", err)
		}
		r.Events += len(batch.Events())
		if batch.LastCursor() >= end {
			break
		}
	}
	r.Took = time.Since(began)
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return err
	}
	r.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	return json.NewEncoder(out).Encode(r)
}

// handle serves pages of posts like a minimal program: one statement, no checks, keys instead of
// tokens, the answer assembled from parts.
func handle(ctx context.Context, database, listen string) error {
	cfg, err := pgxpool.ParseConfig(database)
	if err != nil {
		return err
	}
	cfg.MaxConns = 8 // as many as the api
	cfg.ConnConfig.RuntimeParams["search_path"] = "tagstream"
	cfg.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	cfg.ConnConfig.RuntimeParams["enable_sort"] = "off"
	cfg.ConnConfig.RuntimeParams["jit"] = "off"
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer pool.Close()
	srv := &http.Server{Addr: listen, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tags := r.URL.Query()["tags"]
		if len(tags) == 0 {
			return
		}
		body, err := minimalPage(r.Context(), pool, tags)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
			_, _ = z.Write(body)
			_ = z.Close()
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	})}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

func minimalPage(ctx context.Context, pool *pgxpool.Pool, tags []string) ([]byte, error) {
	branches := make([]string, len(tags))
	args := make([]any, len(tags))
	for i, tag := range tags {
		branches[i] = fmt.Sprintf("(SELECT key FROM post_tags WHERE tag_id = (SELECT id FROM tags WHERE name = $%d) ORDER BY key DESC LIMIT %d)", i+1, pagePosts+1)
		args[i] = tag
	}
	rows, err := pool.Query(ctx, fmt.Sprintf(`
		SELECT p.key, a.did, p.rkey, p.cid, p.tags, p.langs, p.indexed_at, p.record
		  FROM (SELECT DISTINCT key FROM (%s) AS b ORDER BY key DESC LIMIT %d) AS k JOIN posts p USING (key) JOIN accounts a ON a.id = p.account_id
		 ORDER BY p.key DESC`, strings.Join(branches, " UNION ALL "), pagePosts+1), args...)
	if err != nil {
		return nil, err
	}
	b := append(make([]byte, 0, 64<<10), `{"posts":[`...)
	var key [16]byte
	var did, rkey, cid string
	var names, langs []string
	var at time.Time
	var record []byte
	n := 0
	_, err = pgx.ForEachRow(rows, []any{&key, &did, &rkey, &cid, &names, &langs, &at, &record}, func() error {
		if n++; n > pagePosts {
			return nil
		}
		if n > 1 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(append(b, `{"uri":`...), "at://"+did+"/app.bsky.feed.post/"+rkey)
		for _, f := range []struct{ name, value string }{{"cid", cid}, {"did", did}, {"rkey", rkey}, {"indexedAt", at.Format(time.RFC3339Nano)}, {"cursor", base64.RawURLEncoding.EncodeToString(key[:])}} {
			b = strconv.AppendQuote(append(append(append(b, `,"`...), f.name...), `":`...), f.value)
		}
		for _, f := range []struct {
			name  string
			value []string
		}{{"tags", names}, {"langs", langs}} {
			text, _ := json.Marshal(f.value)
			b = append(append(append(append(b, `,"`...), f.name...), `":`...), text...)
		}
		b = append(append(append(b, `,"record":`...), record...), '}')
		return nil
	})
	return append(b, fmt.Sprintf(`],"hasNext":%t}`, n > pagePosts)...), err
}
