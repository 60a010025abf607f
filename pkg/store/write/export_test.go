package write

import (
	"context"
	"time"
)

// SetPatience sets how long to wait for the checkpoint's row before checking its holder.
func (w *Writer) SetPatience(d time.Duration) { w.patience = d }

// CopyOnce copies a row once ready is closed.
func (t *Tx) CopyOnce(ctx context.Context, ready <-chan struct{}) error {
	return copyIn(ctx, t.tx, `COPY change_tags (tag, pos) FROM STDIN (FORMAT binary)`, 1, func(b []byte, _ int) []byte {
		<-ready
		return appendInt(appendInt(rowOf(b, 2), 1), 1)
	})
}

// Work keeps the server busy for half a second.
func (t *Tx) Work(ctx context.Context) error {
	_, err := t.tx.Exec(ctx, `SELECT pg_sleep(0.5)`)
	return err
}

// ReceiveOnce receives many rows once ready is closed.
func (t *Tx) ReceiveOnce(ctx context.Context, ready <-chan struct{}) error {
	rows, _ := t.tx.Query(ctx, `SELECT repeat('x', 1 << 20) FROM generate_series(1, 100)`)
	defer rows.Close()
	<-ready
	for rows.Next() {
	}
	return rows.Err()
}

// ListSome lists one piece of so many posts. List then continues in pieces of that size, and counts
// one tag at a time.
func (w *Writer) ListSome(ctx context.Context, posts int) error {
	w.listPosts, w.listCounts = posts, 1
	_, err := w.listSome(ctx)
	return err
}
