package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
)

// connectTimeout is how long a command waits for NATS.
const connectTimeout = 5 * time.Second

// connect connects, for a command that does not wait for ever.
func connect(ctx context.Context, v *service.Values) (*nats.Conn, error) {
	connected := make(chan struct{}, 1)
	nc, err := service.ConnectNATS(v, slog.New(slog.DiscardHandler), func(err error) {
		if err == nil {
			select {
			case connected <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-connected:
		return nc, nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-time.After(connectTimeout):
		err = fmt.Errorf("no NATS server answers within %s; is TAGSTREAM_NATS_URL right?", connectTimeout)
	}
	nc.Close()
	return nil, err
}

func isTerminal(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}

// printLog prints the ingest log: a table on a terminal, else JSON lines.
func printLog(ctx context.Context, v *service.Values, limit int, out *os.File) error {
	if limit < 1 {
		return &service.ConfigError{Variable: "--limit", Err: fmt.Errorf("%d is not above zero", limit)}
	}
	nc, err := connect(ctx, v)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := stream.JetStream(nc, v.String("NATS_DOMAIN"))
	if err != nil {
		return err
	}
	print, flush := jsonLines(out), func() error { return nil }
	if isTerminal(out) {
		print, flush = table(out)
	}
	if err := stream.Log(ctx, js, limit, print); err != nil {
		return err
	}
	return flush()
}

func jsonLines(out io.Writer) func(stream.LogEntry) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return func(e stream.LogEntry) error { return enc.Encode(e) }
}

func table(out io.Writer) (print func(stream.LogEntry) error, flush func() error) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "AT\tWHAT\tHOST\tSEQ\tDETAIL")
	return func(e stream.LogEntry) error {
		seq := ""
		if !e.Position.IsZero() {
			seq = fmt.Sprint(e.Position.Seq)
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.At.Format(time.DateTime), e.What, e.Host, seq,
			strings.Map(printable, e.Detail))
		return err
	}, w.Flush
}

// printable keeps what hosts say from steering the terminal.
func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
		return '.'
	}
	return r
}
