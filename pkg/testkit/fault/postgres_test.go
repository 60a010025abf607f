package fault_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// through returns a URL of the server through a proxy.
func through(t *testing.T, log *fault.Log, server string) (*fault.Proxy, string) {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	p := fault.New(t, fault.Postgres, u.Host, log)
	u.Host = p.Addr()
	return p, u.String()
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	direct := server.Pool(t)
	for _, form := range fault.Forms {
		for _, how := range fault.Breaks {
			for _, op := range []string{"commit", "statement"} {
				t.Run(fmt.Sprint(op, " ", form, " ", how), func(t *testing.T) {
					t.Parallel()
					table := fmt.Sprintf("t_%s_%d_%d", op, form, how)
					_, err := direct.Exec(t.Context(), "CREATE TABLE "+table+" (n int)")
					require.NoError(t, err)
					var log fault.Log
					p, u := through(t, &log, server.URL)
					pool := pgtest.Pool(t, u)
					insert := func() error {
						ctx, cancel := context.WithTimeout(t.Context(), patient)
						defer cancel()
						return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
							_, err := tx.Exec(ctx, "INSERT INTO "+table+" (n) VALUES ($1)", 1)
							return err
						})
					}
					bare := func() error {
						ctx, cancel := context.WithTimeout(t.Context(), patient)
						defer cancel()
						_, err := pool.Exec(ctx, "INSERT INTO "+table+" (n) VALUES ($1)", 1)
						return err
					}
					count := func() (n int) {
						require.NoError(t, direct.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n))
						return n
					}
					act, match := bare, fault.Statement("INSERT INTO "+table)
					if op == "commit" {
						act, match = insert, fault.CommitAfter("INSERT INTO "+table)
					}

					a := p.Arm(fault.Fault{Kind: op, Match: match, Nth: 2, Form: form, Break: how})
					require.NoError(t, act())
					require.NoError(t, pgx.BeginFunc(t.Context(), pool, func(pgx.Tx) error { return nil }), "another transaction")
					require.Empty(t, log.Counts())
					require.Error(t, act())
					<-a.Fired()
					effect := 1
					if form == fault.TookEffect {
						effect = 2
					}
					require.Equal(t, effect, count())
					require.Equal(t, map[string]int{op + ", " + form.String(): 1}, log.Counts())
					poll.NoError(t, limit, act)
				})
			}
		}
	}
}

// An error is forwarded, and the fault waits for a successful answer.
func TestRefusedStatementTakesNoEffect(t *testing.T) {
	t.Parallel()
	var log fault.Log
	p, u := through(t, &log, pgtest.Server(t).URL)
	pool := pgtest.Pool(t, u)
	a := p.Arm(fault.Fault{Kind: "division", Match: fault.Statement("1 /"), Form: fault.TookEffect})
	_, err := pool.Exec(t.Context(), "SELECT 1 / $1::int", 0)
	require.ErrorContains(t, err, "division by zero")
	require.Empty(t, log.Counts())
	_, err = pool.Exec(t.Context(), "SELECT 1 / $1::int", 1)
	require.Error(t, err)
	<-a.Fired()
	_, err = pool.Exec(t.Context(), "SELECT 1 / $1::int", 1)
	require.NoError(t, err)

	// One that breaks nothing.
	p.Arm(fault.Fault{Kind: "look", Match: fault.Statement("1 /"), Break: fault.Nothing})
	_, err = pool.Exec(t.Context(), "SELECT 1 / $1::int", 1)
	require.NoError(t, err)

	// A disarmed fault does not fire.
	p.Arm(fault.Fault{Kind: "division", Match: fault.Statement("1 /")}).Disarm()
	_, err = pool.Exec(t.Context(), "SELECT 1 / $1::int", 1)
	require.NoError(t, err)
	require.Equal(t, map[string]int{"division, took effect": 1, "look": 1}, log.Counts())
}

func TestConnections(t *testing.T) {
	t.Parallel()
	var log fault.Log
	p, u := through(t, &log, pgtest.Server(t).URL)
	pool := pgtest.Pool(t, u)
	ask := func(pool *pgxpool.Pool) error {
		ctx, cancel := context.WithTimeout(t.Context(), patient)
		defer cancel()
		var s string
		return pool.QueryRow(ctx, "SELECT repeat('x', 1000)").Scan(&s)
	}
	for _, how := range []fault.Break{fault.Cut, fault.Reset, fault.Torn} {
		t.Run(how.String(), func(t *testing.T) {
			conn, err := pgx.Connect(t.Context(), u)
			require.NoError(t, err)
			require.Positive(t, p.Break(how))
			_, err = conn.Exec(t.Context(), "SELECT 1")
			require.Error(t, err)
			poll.NoError(t, limit, func() error { return ask(pool) })
		})
	}
	t.Run("held", func(t *testing.T) {
		p.Hold()
		require.ErrorIs(t, ask(pool), context.DeadlineExceeded)
		p.Release()
		poll.NoError(t, limit, func() error { return ask(pool) })
	})
	t.Run("slow", func(t *testing.T) {
		p.Slow(100_000)
		start := time.Now()
		require.NoError(t, ask(pool))
		require.Greater(t, time.Since(start), 10*time.Millisecond)
		p.Slow(0)
	})
	t.Run("refused", func(t *testing.T) {
		p.Refuse(true)
		p.Break(fault.Cut)
		conn, err := net.Dial("tcp", p.Addr())
		require.NoError(t, err)
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		p.Refuse(false)
		poll.NoError(t, limit, func() error { return ask(pool) })
	})
}
