package store_test

import (
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

// TestOtherEncodings asks databases that are not encoded in UTF8, which refuse some
// posts and find others under wrong tags.
//
// Invariant: each connection checks the database first: one that is too old or not UTF8 is not
// used, a writer does not use one that takes no writes, and the session encoding is ours. See
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
			r, err := store.OpenReader(t.Context(), o)
			require.NoError(t, err)
			w, err := store.OpenWriter(t.Context(), o, "w")
			require.NoError(t, err)

			says := `database "` + name + `" is encoded in ` + encoding + `, and UTF8 is needed`
			err = store.Migrate(t.Context(), o, quiet)
			require.ErrorIs(t, err, store.ErrUnfit)
			require.ErrorContains(t, err, says)
			require.NotContains(t, err.Error(), "\n")
			_, err = r.TagsWithPrefix(t.Context(), "art")
			require.ErrorIs(t, err, store.ErrUnfit)
			require.True(t, store.Unavailable(err), "nothing is served")
			_, err = w.Acquire(t.Context())
			require.ErrorContains(t, err, says)
			require.ErrorIs(t, store.EnsureMigrated(t.Context(), o, quiet), store.ErrUnfit)

			r.Close()
			w.Close()
			_, err = pool.Exec(t.Context(), "DROP DATABASE "+name)
			require.NoError(t, err)
		})
	}
}

// TestOtherClientEncodings connects as a role that others gave an encoding.
func TestOtherClientEncodings(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	owner := db.Role(t, "owner", "SUPERUSER")
	_, err := db.Pool(t).Exec(t.Context(), "ALTER ROLE "+owner.Name+" SET client_encoding = 'EUC_JP'; ALTER ROLE "+owner.Name+" SET standard_conforming_strings = off")
	require.NoError(t, err)
	o := store.Options{URL: owner.URL}
	require.NoError(t, store.Migrate(t.Context(), o, quiet))
	seedPosts(t, openLeader(t, o), seed{posts: 1, second: func(int) int { return 0 }, tags: func(int) []string { return []string{"🎨日本"} }})
	tags, err := openReader(t, o).TagsWithPrefix(t.Context(), "🎨")
	require.NoError(t, err)
	require.Equal(t, []store.TagCount{{Name: "🎨日本", Posts: 1}}, tags)
}

// TestAddressLedToAStandby connects a writer while its address leads to a server that
// takes no writes, and then to the primary.
func TestAddressLedToAStandby(t *testing.T) {
	t.Parallel()
	standby := pgtest.Server(t, pgtest.Setting("default_transaction_read_only", "on"))
	primary := pgtest.Server(t)
	require.NoError(t, store.Migrate(t.Context(), store.Options{URL: primary.URL}, quiet))
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
	w := openWriter(t, through(proxy.Addr()), "w")
	_, err := w.Acquire(t.Context())
	require.ErrorIs(t, err, store.ErrReadOnly)
	proxy.Lead(at(primary.URL).Host)
	_, err = w.Acquire(t.Context())
	require.NoError(t, err, "no connection of before is kept")

	// Of several hosts the one that takes writes is chosen, and readers take any.
	t.Run("hosts", func(t *testing.T) {
		two := through(at(standby.URL).Host + "," + at(primary.URL).Host)
		w := openWriter(t, two, "w")
		_, err := w.Acquire(t.Context())
		require.NoError(t, err)
		require.NoError(t, store.Migrate(t.Context(), two, quiet))
		name, err := openReader(t, two).Asked(t.Context(), "SELECT inet_server_port()::text")
		require.NoError(t, err)
		_, port, err := net.SplitHostPort(at(standby.URL).Host)
		require.NoError(t, err)
		require.Equal(t, port, name)
	})
	// A connection whose server begins to refuse writes is of no more use.
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

func TestPoolSize(t *testing.T) {
	t.Parallel()
	const base = "postgres://u@127.0.0.1/x"
	for _, c := range []struct {
		name string
		o    store.Options
		want int32
	}{
		{"default", store.Options{URL: base}, 4},
		{"program's default", store.Options{URL: base, DefaultConns: 8}, 8},
		{"URL", store.Options{URL: base + "?pool_max_conns=3", DefaultConns: 8}, 3},
		{"setting", store.Options{URL: base + "?pool_max_conns=3", DefaultConns: 8, MaxConns: 7}, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, _, err := store.Where(c.o)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

// FuzzURL makes URLs of broken user-info. Nothing of it may stand in an error, nor in
// what a URL that is accepted leads to: that is named by later errors.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"u:p", "u:p#", "u:@", "u:/1", "u:1?", "u:1/", "u:%", "u:%zz", ":[", "u:,", "u: ", "u:1,@", "u:\x00", "u:'", "u@u:p", "://", "u:p@h?password=", "u:\n"} {
		f.Add(s, "host:5432/db?sslmode=bogus")
		f.Add(s, "host/db")
		f.Add(s, "a,b:1:2/db")
	}
	const secret = "S3CR3T"
	f.Fuzz(func(t *testing.T, broken, rest string) {
		if strings.Contains(rest, secret) || strings.Contains(rest, "@") {
			return
		}
		for _, info := range []string{broken + secret, secret + broken, secret + broken + secret} {
			for _, scheme := range []string{"postgres://", "postgresql://", "Postgres://", ""} {
				_, hosts, names, err := store.Where(store.Options{URL: scheme + info + "@" + rest})
				if err != nil {
					require.NotContains(t, err.Error(), secret)
					continue
				}
				if scheme != "" && strings.HasPrefix(scheme, "p") {
					require.NotContains(t, strings.Join(append(hosts, names...), " "), secret, "%s%s@%s", scheme, info, rest)
				}
			}
		}
	})
}
