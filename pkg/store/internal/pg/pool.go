package pg

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Pool is a connection pool whose names refer to one schema and whose settings hold, whatever is
// between them and the server: see session.go.
type Pool struct {
	*pgxpool.Pool
	// pooled is the kind of end of the last connection: pooledUnknown before the first one.
	pooled atomic.Int32
}

const (
	pooledUnknown = iota
	pooledNo
	pooledYes
)

// OpenPool opens a pool. ready, if not nil, prepares each new connection further.
func OpenPool(ctx context.Context, t Target, ready func(context.Context, *pgx.Conn) error) (*Pool, error) {
	p := &Pool{}
	greet := func(ctx context.Context, conn *pgx.Conn) (now int32, err error) {
		if err := t.Greet(ctx, conn); err != nil {
			return pooledUnknown, err
		}
		if PooledSettings(conn) != nil {
			return pooledYes, nil
		}
		return pooledNo, nil
	}
	// How statements are sent is decided before a connection is made, but what it leads to is known
	// only afterwards: the pool's first connection serves to find out.
	t.Config.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) error {
		if p.pooled.Load() == pooledUnknown {
			conn, err := pgx.ConnectConfig(ctx, cc)
			if err != nil {
				return err
			}
			now, err := greet(ctx, conn)
			_ = conn.Close(ctx)
			if err != nil {
				return err
			}
			p.pooled.Store(now)
		}
		if p.pooled.Load() == pooledYes {
			cc.DefaultQueryExecMode = pgx.QueryExecModeExec
		}
		return nil
	}
	t.Config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		now, err := greet(ctx, conn)
		if err != nil {
			return err
		}
		p.pooled.Store(now)
		if (now == pooledYes) != (conn.Config().DefaultQueryExecMode == pgx.QueryExecModeExec) {
			return ErrOtherEnd
		}
		if ready != nil {
			return ready(ctx, conn)
		}
		return nil
	}
	var err error
	if p.Pool, err = pgxpool.NewWithConfig(ctx, t.Config); err != nil {
		return nil, fmt.Errorf("open a pool of connections: %w", err)
	}
	return p, nil
}

// Begin is BeginTx with the server's defaults.
func (p *Pool) Begin(ctx context.Context) (pgx.Tx, error) { return p.BeginTx(ctx, pgx.TxOptions{}) }

// BeginTx begins a transaction with the settings.
func (p *Pool) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	c, err := p.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := begin(ctx, c.Conn(), o, PooledSettings(c.Conn()))
	if err != nil {
		c.Release()
		return nil, err
	}
	return heldTx{tx, c}, nil
}

// heldTx releases its connection at its end.
type heldTx struct {
	pgx.Tx
	conn *pgxpool.Conn
}

func (t heldTx) Commit(ctx context.Context) error {
	defer t.conn.Release()
	return t.Tx.Commit(ctx)
}

func (t heldTx) Rollback(ctx context.Context) error {
	defer t.conn.Release()
	return t.Tx.Rollback(ctx)
}

// Exec runs a statement in a separate transaction.
func (p *Pool) Exec(ctx context.Context, sql string, args ...any) (tag pgconn.CommandTag, err error) {
	err = p.alone(ctx, func(q session) error {
		tag, err = q.Exec(ctx, sql, args...)
		return err
	})
	return tag, err
}

// QueryRow runs a statement that returns a row, in a separate transaction, when the row is scanned.
func (p *Pool) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	return rowFunc(func(dest ...any) error {
		return p.alone(ctx, func(q session) error { return q.QueryRow(ctx, sql, args...).Scan(dest...) })
	})
}

type rowFunc func(dest ...any) error

func (f rowFunc) Scan(dest ...any) error { return f(dest...) }

// Query runs a read-only statement in a separate transaction.
func (p *Pool) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	c, err := p.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	end := c.Release
	if s := PooledSettings(c.Conn()); s != nil {
		tx, err := begin(ctx, c.Conn(), pgx.TxOptions{AccessMode: pgx.ReadOnly}, s)
		if err != nil {
			c.Release()
			return nil, err
		}
		end = func() {
			_ = tx.Rollback(ctx) // it has changed nothing
			c.Release()
		}
	}
	rows, err := c.Query(ctx, sql, args...)
	if err != nil {
		end()
		return nil, err
	}
	return heldRows{rows, end}, nil
}

// heldRows end their transaction when they are closed; closing twice is harmless.
type heldRows struct {
	pgx.Rows
	end func()
}

func (r heldRows) Close() {
	r.Rows.Close()
	r.end()
}

// session runs statements with the settings in effect.
type session interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func (p *Pool) alone(ctx context.Context, fn func(q session) error) error {
	return p.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
		s := PooledSettings(c.Conn())
		if s == nil {
			return fn(c)
		}
		return BeginFunc(ctx, c.Conn(), pgx.TxOptions{}, s, func(tx pgx.Tx) error { return fn(tx) })
	})
}
