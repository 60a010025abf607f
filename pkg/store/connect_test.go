package store_test

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// TestOtherEncodings connects to databases that are not encoded in UTF8, which refuse some posts
// and find others under wrong tags.
//
// Invariant: each connection checks the database first: one that is too old or not UTF8 is not
// used, a writer does not use one that accepts no writes, and the session encoding is ours. See
// also TestOtherClientEncodings, TestAddressLedToAStandby and TestPromotedStandby.
func TestOtherEncodings(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	for _, encoding := range []string{"EUC_JP", "SQL_ASCII", "LATIN1"} {
		t.Run(encoding, func(t *testing.T) {
			name := strings.ToLower(db.Name + "_" + encoding)
			pool := db.Pool(t)
			_, err := pool.Exec(t.Context(), "CREATE DATABASE "+name+" ENCODING '"+encoding+"' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
			require.NoError(t, err)
			o := store.Options{URL: strings.Replace(db.URL, db.Name, name, 1)}
			r, err := query.Open(t.Context(), o)
			require.NoError(t, err)
			w, err := write.Open(t.Context(), o, "w")
			require.NoError(t, err)

			says := `database "` + name + `" is encoded in ` + encoding + `, and UTF8 is needed`
			err = store.Migrate(t.Context(), o, storetest.Quiet)
			require.ErrorIs(t, err, store.ErrUnfit)
			require.ErrorContains(t, err, says)
			require.NotContains(t, err.Error(), "\n")
			_, err = r.TagsWithPrefix(t.Context(), "art")
			require.ErrorIs(t, err, store.ErrUnfit)
			require.True(t, store.Unavailable(err), "nothing is served")
			_, err = w.Acquire(t.Context())
			require.ErrorContains(t, err, says)
			require.ErrorIs(t, store.EnsureMigrated(t.Context(), o, storetest.Quiet), store.ErrUnfit)

			r.Close()
			w.Close()
			_, err = pool.Exec(t.Context(), "DROP DATABASE "+name)
			require.NoError(t, err)
		})
	}
}

// TestOtherClientEncodings connects as a role with another default encoding.
func TestOtherClientEncodings(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	owner := db.Role(t, "owner", "SUPERUSER")
	_, err := db.Pool(t).Exec(t.Context(), "ALTER ROLE "+owner.Name+" SET client_encoding = 'EUC_JP'; ALTER ROLE "+owner.Name+" SET standard_conforming_strings = off")
	require.NoError(t, err)
	o := store.Options{URL: owner.URL}
	require.NoError(t, store.Migrate(t.Context(), o, storetest.Quiet))
	storetest.SeedPosts(t, storetest.Leader(t, o), storetest.Seed{Posts: 1, Second: func(int) int { return 0 }, Tags: func(int) []string { return []string{"🎨日本"} }})
	tags, err := storetest.Reader(t, o).TagsWithPrefix(t.Context(), "🎨")
	require.NoError(t, err)
	require.Equal(t, []query.TagCount{{Name: "🎨日本", Posts: 1}}, tags)
}

// TestAddressLedToAStandby connects a writer while its address leads to a server that accepts no
// writes, and then to the primary.
func TestAddressLedToAStandby(t *testing.T) {
	t.Parallel()
	standby := pgtest.Server(t, pgtest.Setting("default_transaction_read_only", "on"))
	primary := pgtest.Server(t)
	require.NoError(t, store.Migrate(t.Context(), store.Options{URL: primary.URL}, storetest.Quiet))
	at := func(raw string) *url.URL {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		return u
	}
	through := func(addr string) store.Options {
		u := at(primary.URL)
		u.Host = addr
		return store.Options{URL: u.String()}
	}
	proxy := fault.New(t, fault.Raw, at(standby.URL).Host, nil)
	w := storetest.Writer(t, through(proxy.Addr()), "w")
	_, err := w.Acquire(t.Context())
	require.ErrorIs(t, err, store.ErrReadOnly)
	proxy.Lead(at(primary.URL).Host)
	_, err = w.Acquire(t.Context())
	require.NoError(t, err, "no connection of before is kept")

	// Of several hosts, writers choose the one that accepts writes, and readers take any.
	t.Run("hosts", func(t *testing.T) {
		two := through(at(standby.URL).Host + "," + at(primary.URL).Host)
		w := storetest.Writer(t, two, "w")
		_, err := w.Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, store.Migrate(t.Context(), two, storetest.Quiet))
		var name string
		require.NoError(t, pg.Do(t.Context(), two, pg.Reading, func(conn *pgx.Conn) error {
			return conn.QueryRow(t.Context(), "SELECT inet_server_port()::text").Scan(&name)
		}))
		_, port, err := net.SplitHostPort(at(standby.URL).Host)
		require.NoError(t, err)
		require.Equal(t, port, name)
	})
	// A connection whose server starts to refuse writes is not used again.
	t.Run("later", func(t *testing.T) {
		pool := primary.Pool(t)
		_, err := pool.Exec(t.Context(), "ALTER SYSTEM SET default_transaction_read_only = on")
		require.NoError(t, err)
		_, err = pool.Exec(t.Context(), "SELECT pg_reload_conf()")
		require.NoError(t, err)
		for err == nil {
			_, err = w.Acquire(t.Context())
		}
		require.ErrorContains(t, err, "25006")
		_, err = w.Acquire(t.Context())
		require.ErrorIs(t, err, store.ErrReadOnly, "it looks again")
	})
}
