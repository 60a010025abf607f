package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
)

// Log prints the ingest log: a table on a terminal, else JSON lines.
type Log struct {
	Limit int          `type:"count" default:"100" placeholder:"N" help:"print the newest N entries"`
	NATS  service.NATS `embed:""`
}

// Run prints.
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
	seq := ""
	if !e.Position.IsZero() {
		seq = fmt.Sprint(e.Position.Seq)
	}
	return t.Row(e, e.At.Format(time.DateTime), e.What, e.Host, seq, e.Detail)
}
