// Package storetest makes indexes for tests.
package storetest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

// Quiet logs nothing.
var Quiet = slog.New(slog.DiscardHandler)

// Database returns a separate, migrated database for the test.
func Database(t testing.TB) store.Options {
	t.Helper()
	o := store.Options{URL: pgtest.Database(t).URL}
	require.NoError(t, store.Migrate(t.Context(), o, Quiet))
	return o
}

// Index migrates the schema of o and returns its writer with the lease.
func Index(t testing.TB, o store.Options) *write.Writer {
	t.Helper()
	require.NoError(t, store.Migrate(t.Context(), o, Quiet))
	return Leader(t, o)
}

// Writer opens a writer and closes it with the test.
func Writer(t testing.TB, o store.Options, holder string) *write.Writer {
	t.Helper()
	w, err := write.Open(t.Context(), o, holder)
	require.NoError(t, err)
	t.Cleanup(w.Close)
	return w
}

// Leader is Writer with the lease.
func Leader(t testing.TB, o store.Options) *write.Writer {
	t.Helper()
	w := Writer(t, o, "w")
	_, err := w.Acquire(t.Context())
	require.NoError(t, err)
	return w
}

// Reader opens a reader and closes it with the test.
func Reader(t testing.TB, o store.Options) *query.Reader {
	t.Helper()
	r, err := query.Open(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// Seed describes the posts of SeedPosts.
type Seed struct {
	Posts int
	// Tags of post number i.
	Tags func(i int) []string
	// Langs of post number i, nil for none.
	Langs func(i int) []string
	// Author of post number i, nil for one author.
	Author func(i int) string
	// Record of post number i, nil for a default.
	Record func(i int) string
	// Second of post number i; several may share one.
	Second func(i int) int
}

// Epoch is the time of the first post.
var Epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// SeedPosts writes posts with the writer, like the indexer, and returns them newest first.
func SeedPosts(t testing.TB, w *write.Writer, s Seed) []*write.Post {
	t.Helper()
	const batch = 1000
	accounts := map[string]*write.Account{}
	var all []*write.Post
	for from := 0; from < s.Posts; from += batch {
		var c write.Changes
		for i := from; i < min(from+batch, s.Posts); i++ {
			did := "did:plc:author"
			if s.Author != nil {
				did = s.Author(i)
			}
			account := accounts[did]
			if account == nil {
				account = &write.Account{DID: did, Seq: 1}
				accounts[did], c.Accounts = account, append(c.Accounts, account)
			}
			p := &write.Post{
				Account: account, Rkey: fmt.Sprintf("rkey%06d", i), Rev: "3abcdefghijkl", CID: "bafy", Tags: s.Tags(i),
				IndexedAt: Epoch, Seq: uint64(i + 1), Record: []byte(`{"text":"hello"}`),
			}
			if s.Record != nil {
				p.Record = []byte(s.Record(i))
			}
			if s.Langs != nil {
				p.Langs = s.Langs(i)
			}
			p.Key = event.NewKey(Epoch.Add(time.Duration(s.Second(i))*time.Second), event.URI(account.DID, p.Rkey))
			c.Posts = append(c.Posts, write.PostChange{New: p, NewVisible: true})
			all = append(all, p)
		}
		require.NoError(t, w.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
			cp.Seq += uint64(len(c.Posts))
			return cp, tx.Write(t.Context(), c)
		}))
	}
	slices.SortFunc(all, func(a, b *write.Post) int { return slices.Compare(b.Key[:], a.Key[:]) })
	return all
}

// Rebuilding returns the writer of an index that is being built next to the live one.
func Rebuilding(t testing.TB, o store.Options) *write.Writer {
	t.Helper()
	o.Schema = store.Rebuilding
	return Index(t, o)
}

// Add writes one post with one tag through w.
func Add(t testing.TB, w *write.Writer, did, tag string, seq uint64) error {
	return w.Apply(context.WithoutCancel(t.Context()), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		rows, err := tx.Accounts(t.Context(), []string{did})
		if err != nil {
			return cp, err
		}
		var c write.Changes
		account := rows[did]
		if account == nil {
			account = &write.Account{DID: did, Seq: seq}
			c.Accounts = []*write.Account{account}
		}
		at := Epoch.Add(time.Duration(seq) * time.Second)
		c.Posts = []write.PostChange{{NewVisible: true, New: &write.Post{
			Key: event.NewKey(at, did+tag), Account: account, Rkey: tag, Rev: "3abcdefghijkl", CID: "bafy",
			Tags: []string{tag}, IndexedAt: at, Seq: seq, Record: []byte(`{}`),
		}}}
		cp.Seq = seq
		return cp, tx.Write(t.Context(), c)
	})
}
