package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
)

// Log prints the ingest log: a table on a terminal, else JSON lines.
type Log struct {
	Limit int          `type:"count" default:"100" placeholder:"N" help:"print the newest N entries"`
	NATS  service.NATS `embed:""`
}

// Run prints the log.
func (l *Log) Run(ctx context.Context, p *service.Process) error {
	nc, err := l.NATS.Dial(ctx, p)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := stream.JetStream(nc, l.NATS.Domain)
	if err != nil {
		return err
	}
	table := logTable(p)
	if err := stream.Log(ctx, js, l.Limit, func(e stream.LogEntry) error { return logRow(table, e) }); err != nil {
		return err
	}
	return table.Close()
}

func logTable(p *service.Process) *service.Table {
	return p.Table("AT", "WHAT", "HOST", "SEQ", "DETAIL")
}

func logRow(t *service.Table, e stream.LogEntry) error {
	at, seq := "-", ""
	if known(e.At) != nil {
		at = e.At.Format(time.DateTime)
	}
	out := entryJSON{LogEntry: e, At: known(e.At)}
	if p := e.Position; !p.IsZero() {
		seq = fmt.Sprint(p.Seq)
		out.Position = &positionJSON{p, known(p.Time)}
	}
	return t.Row(out, at, e.What, e.Host, seq, e.Detail)
}

// entryJSON is a log entry in JSON. Unknown times are null.
type entryJSON struct {
	At *time.Time `json:"at"`
	stream.LogEntry
	Position *positionJSON `json:"position,omitempty"`
}

type positionJSON struct {
	event.Position
	Time *time.Time `json:"time"`
}

// known returns nil for an unknown time: a position before all history has one in 1970.
func known(t time.Time) *time.Time {
	if !t.After(time.Unix(0, 0)) {
		return nil
	}
	return &t
}
