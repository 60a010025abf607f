package soak_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/test/model"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

// queries is the number of random queries per comparison. It is small: each run compares twice, and
// there are many runs.
const queries = 6

// differences compares the final state of the installation with the expected one. It must be at
// rest.
func (s *site) differences(ctx context.Context, seed uint64) (found []string, messages uint64) {
	note := func(what string, err error) {
		if err != nil {
			found = append(found, what+": "+err.Error())
		}
	}
	// First the stream, which determines the index exactly.
	folded, messages, err := s.foldStream(ctx)
	note("the stream", err)
	if err == nil {
		folded.Deny(s.deniedDIDs, s.deniedTags)
		note("the index against the stream", model.Check(ctx, s.apiURL, folded, model.Queries(queries, seed)))
	}
	network, err := model.FromNetwork(s.networkLog())
	note("the network", err)
	if err == nil {
		network.Deny(s.deniedDIDs, s.deniedTags)
		if s.other != nil {
			network.SeveralHosts()
		}
		note("the index against the network", model.Check(ctx, s.apiURL, network, model.Queries(queries, seed)))
	}
	note("the database", s.checkDatabase(ctx))
	return found, messages
}

// networkLog returns what the network did. A post with an imported time may have a time before its
// creation.
func (s *site) networkLog() []simnet.Entry {
	log := s.network.Log()
	for i := range log {
		if slices.ContainsFunc(log[i].Ops, func(op simnet.OpResult) bool { return s.imported[op.URI] }) {
			log[i].Time = importedTime
		}
	}
	return log
}

// withStream calls fn with a connection to the stream.
func (s *site) withStream(fn func(js jetstream.JetStream) error) error {
	nc, err := nats.Connect(s.natsURL(s.opsNATS))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return fn(js)
}

func (s *site) streamState(ctx context.Context) (state stream.State, err error) {
	err = s.withStream(func(js jetstream.JetStream) error {
		state, err = stream.GetState(ctx, js)
		return err
	})
	return state, err
}

// foldStream folds the whole stream.
func (s *site) foldStream(ctx context.Context) (*model.Index, uint64, error) {
	x, places := model.New(), places{}
	var last uint64
	err := s.withStream(func(js jetstream.JetStream) error {
		state, err := stream.GetState(ctx, js)
		if err != nil {
			return err
		}
		last = state.Last
		return eachMessage(ctx, js, 1, last, func(m stream.Message) error {
			if err := places.check(m); err != nil {
				return err
			}
			x.Apply(m.Seq, m.Data)
			return nil
		})
	})
	return x, last, err
}

// eachMessage reads the messages between two numbers. None may be missing.
func eachMessage(ctx context.Context, js jetstream.JetStream, from, last uint64, fn func(stream.Message) error) error {
	next := from
	for batch, err := range stream.Range(ctx, js, from, last) {
		if err != nil {
			return fmt.Errorf("read from %d of %d: %w", next, last, err)
		}
		for _, m := range batch {
			if m.Seq != next {
				return fmt.Errorf("message %d follows message %d", m.Seq, next-1)
			}
			if err := fn(m); err != nil {
				return err
			}
			next++
		}
	}
	if next <= last {
		return fmt.Errorf("message %d is missing", next)
	}
	return nil
}

// places checks that each message has the position of its own upstream event: no two events have
// the same position in one history. A killed server reuses sequence numbers for other events, at
// other times.
type places map[event.Position]string

func (p places) check(m stream.Message) error {
	ev, err := event.Decode(m.Data)
	if err != nil {
		return fmt.Errorf("message %d: %w", m.Seq, err)
	}
	if ev.Kind == event.KindPosition {
		return nil
	}
	is := fmt.Sprintf("%s of %s/%s at %s", ev.Kind, ev.DID, ev.Rkey, ev.Rev)
	if was, known := p[ev.Source]; known && was != is {
		return fmt.Errorf("message %d, %s, has the position of another event: %s", m.Seq, is, was)
	}
	p[ev.Source] = is
	return nil
}

// invariants are queries that return a description of each violation in the database.
var invariants = []struct{ what, sql string }{
	{"a visible post has each of its tags once, a hidden one none", `
		SELECT p.did || '/' || p.rkey FROM (
			SELECT p.key, a.did, p.rkey, CASE WHEN a.state = 0 THEN cardinality(p.tags) ELSE 0 END AS want
			  FROM posts p JOIN accounts a ON a.id = p.account_id) p
		 WHERE want <> (SELECT count(*) FROM post_tags t WHERE t.key = p.key)`},
	{"a list row belongs to a post", `
		SELECT 'tag ' || tag_id FROM post_tags t WHERE NOT EXISTS (SELECT FROM posts p WHERE p.key = t.key)
		UNION ALL
		SELECT 'language ' || lang_id FROM post_langs l WHERE NOT EXISTS (
			SELECT FROM posts p JOIN accounts a ON a.id = p.account_id WHERE p.key = l.key AND a.state = 0)`},
	{"counters equal what they count", `
		SELECT name FROM tags WHERE posts <> (SELECT count(*) FROM post_tags t WHERE t.tag_id = tags.id)
		UNION ALL
		SELECT name FROM langs WHERE posts <> (SELECT count(*) FROM post_langs l WHERE l.lang_id = langs.id)
		UNION ALL
		SELECT 'checkpoint' FROM checkpoint WHERE posts <> (SELECT count(*) FROM posts)
		    OR visible_posts <> (SELECT count(*) FROM posts p JOIN accounts a ON a.id = p.account_id WHERE a.state = 0)
		    OR tags <> (SELECT count(*) FROM tags WHERE posts > 0)`},
	{"what is there has no marker of its removal", `
		SELECT rkey FROM posts JOIN removed_posts USING (account_id, rkey)`},
	{"no schema is left of a rebuild", `
		SELECT nspname FROM pg_namespace WHERE nspname IN ('tagstream_rebuild', 'tagstream_retired')`},
}

func (s *site) checkDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.databaseURL("", nil))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "SET search_path = tagstream"); err != nil {
		return err
	}
	for _, i := range invariants {
		rows, err := conn.Query(ctx, i.sql)
		if err != nil {
			return fmt.Errorf("%s: %w", i.what, err)
		}
		wrong, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return fmt.Errorf("%s: %w", i.what, err)
		}
		if len(wrong) > 0 {
			return fmt.Errorf("%s: %d violations, first %s", i.what, len(wrong), wrong[0])
		}
	}
	return nil
}

// readerPause is the reader's pause between two requests.
const readerPause = 50 * time.Millisecond

// reader queries the API during the whole run. Each answer must be right or say that the API is
// unavailable; it must never be wrong or an internal error.
type reader struct {
	mu    sync.Mutex
	asked int
	away  int
	wrong []string
}

func (r *reader) run(ctx context.Context, base string) {
	paths := []string{"/v1/posts?tags=art&limit=50", "/v1/posts?tags=art&tags=photo&limit=20", "/v1/posts?tags=photo&last=10", "/v1/status", "/v1/tags?limit=20"}
	ticker := time.NewTicker(readerPause)
	defer ticker.Stop()
	for i := 0; ctx.Err() == nil; i++ {
		path := paths[i%len(paths)]
		status, body := process.Fetch(base + path)
		if ctx.Err() != nil {
			return
		}
		r.note(path, status, body)
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
}

func (r *reader) note(path string, status int, body string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	switch status {
	case http.StatusOK:
		if err := inOrder(body); err != nil {
			r.wrong = append(r.wrong, fmt.Sprintf("GET %s: %v", path, err))
		}
	case 0, http.StatusServiceUnavailable:
		r.away++
	default:
		r.wrong = append(r.wrong, fmt.Sprintf("GET %s: status %d: %s", path, status, body))
	}
}

// inOrder checks that a page has its posts newest first, each once.
func inOrder(body string) error {
	var page struct {
		Posts []struct{ URI, SortAt string }
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		return fmt.Errorf("read the answer: %w: %s", err, body)
	}
	seen := map[string]bool{}
	for i, p := range page.Posts {
		if seen[p.URI] {
			return fmt.Errorf("%s is on the page twice", p.URI)
		}
		seen[p.URI] = true
		// Times have a fixed length, so they compare as text.
		if i > 0 && p.SortAt > page.Posts[i-1].SortAt {
			return fmt.Errorf("%s of %s comes after one of %s", p.URI, p.SortAt, page.Posts[i-1].SortAt)
		}
	}
	return nil
}
