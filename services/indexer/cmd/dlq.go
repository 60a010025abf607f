package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/service/dbsettings"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// DeadLetters are the commands for messages that could not be applied.
type DeadLetters struct {
	List    List    `cmd:"" default:"withargs" help:"list dead letters, newest first"`
	Show    Show    `cmd:"" help:"show a dead letter unchanged"`
	Redrive Redrive `cmd:"" help:"apply dead letters at their place in the stream"`
	Drop    Drop    `cmd:"" help:"remove dead letters without applying them"`
}

// Seq is the number of a message.
type Seq uint64

// UnmarshalText reads the number.
func (s *Seq) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not the number of a message", text)
	}
	*s = Seq(n)
	return nil
}

// reasonFlag selects dead letters by reason.
type reasonFlag struct {
	Reason string `placeholder:"REASON" help:"with this REASON: unknown_version, invalid or rejected"`
}

// check rejects a misspelt reason, which would look as if there were no dead letters.
func (f reasonFlag) check() error {
	if f.Reason != "" && !slices.Contains(apply.Reasons, apply.Reason(f.Reason)) {
		return usage("--reason", "%q is not unknown_version, invalid or rejected", f.Reason)
	}
	return nil
}

// List lists dead letters: a table on a terminal, else JSON lines.
type List struct {
	Limit      int `type:"count" default:"100" placeholder:"N" help:"list at most N"`
	reasonFlag `embed:""`
	NATS       service.NATS `embed:""`
}

// Run lists.
func (l *List) Run(ctx context.Context, p *service.Process) error {
	if err := l.check(); err != nil {
		return err
	}
	return withStream(ctx, p, l.NATS, func(js jetstream.JetStream) error {
		n, table := 0, letterTable(p)
		err := stream.EachDeadLetter(ctx, js, func(d stream.DeadLetter) error {
			switch {
			case l.Reason != "" && d.Reason != l.Reason:
				return nil
			case n == l.Limit:
				return errEnough
			}
			n++
			return letterRow(table, d)
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		if flushErr := table.Close(); flushErr != nil {
			return flushErr
		}
		switch {
		case err != nil:
			fmt.Fprintf(p.Stderr, "there are more than these %d; --limit shows more\n", l.Limit)
		case n == 0:
			fmt.Fprintln(p.Stderr, "no dead letters")
		}
		return nil
	})
}

var errEnough = errors.New("enough")

func letterTable(p *service.Process) *service.Table {
	return p.Table("SEQ", "AT", "REASON", "BYTES", "ERROR")
}

func letterRow(t *service.Table, d stream.DeadLetter) error {
	return t.Row(lineOf(d), d.Seq, d.At.Format(time.DateTime), d.Reason, len(d.Payload), d.Error)
}

// letterLine is a dead letter as a line of JSON.
type letterLine struct {
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Reason  string    `json:"reason"`
	Error   string    `json:"error"`
	Bytes   int       `json:"bytes"`
	Payload any       `json:"payload,omitempty"`
}

func lineOf(d stream.DeadLetter) letterLine {
	return letterLine{Seq: d.Seq, At: d.At, Reason: d.Reason, Error: d.Error, Bytes: len(d.Payload)}
}

// Show prints one dead letter with its payload, indented if it is JSON; as one line of JSON if the
// output is not a terminal.
type Show struct {
	Seq  Seq          `arg:"" help:"its number, from dlq list"`
	NATS service.NATS `embed:""`
}

// Run shows.
func (s *Show) Run(ctx context.Context, p *service.Process) error {
	return withStream(ctx, p, s.NATS, func(js jetstream.JetStream) error {
		d, err := stream.GetDeadLetter(ctx, js, uint64(s.Seq))
		if err != nil {
			return err
		}
		return showLetter(p, d)
	})
}

func showLetter(p *service.Process, d stream.DeadLetter) error {
	if !p.Terminal {
		line := lineOf(d)
		line.Payload = string(d.Payload)
		if utf8.Valid(d.Payload) && json.Valid(d.Payload) {
			line.Payload = json.RawMessage(d.Payload)
		}
		return p.Answer(line, "")
	}
	t := p.Table()
	err := errors.Join(t.Row(nil, "seq", d.Seq), t.Row(nil, "at", d.At.Format(time.RFC3339Nano)), t.Row(nil, "reason", d.Reason),
		t.Row(nil, "error", d.Error), t.Row(nil, "bytes", len(d.Payload)), t.Close())
	var payload bytes.Buffer
	if json.Indent(&payload, d.Payload, "", "  ") != nil {
		payload.Reset()
		payload.WriteString(strconv.QuoteToASCII(string(d.Payload)))
	}
	if len(d.Payload) == 0 {
		payload.Reset()
		payload.WriteString("(the message was too big to be copied)")
	}
	_, printErr := fmt.Fprintf(p.Stdout, "\n%s\n", service.Plain(payload.String()))
	return errors.Join(err, printErr)
}

// Redrive applies dead letters.
type Redrive struct {
	Seqs       []Seq `arg:"" optional:"" name:"seq" help:"their numbers, from dlq list"`
	All        bool  `help:"every dead letter"`
	reasonFlag `embed:""`
	servers    `embed:""`
}

// Run redrives.
func (r *Redrive) Run(ctx context.Context, p *service.Process) error {
	switch {
	case len(r.Seqs) > 0 && (r.All || r.Reason != ""), r.All && r.Reason != "":
		return usage("dlq redrive", "give numbers, or --all or --reason, not both")
	case len(r.Seqs) == 0 && !r.All && r.Reason == "":
		return usage("dlq redrive", "say which: numbers from dlq list, --all, or --reason REASON")
	}
	if err := r.check(); err != nil {
		return err
	}
	options, nc, logger, err := r.open(ctx, p, dbsettings.Indexer)
	if err != nil {
		return err
	}
	defer nc.Close()
	var printErr error
	bar := obs.NewBar(os.Stderr, logger, "reading the stream", "messages")
	applied, stayed, err := indexer.Redrive(ctx, indexer.RedriveConfig{
		Database: options, ID: nuid.Next(), Domain: r.NATS.Domain, Seqs: numbers(r.Seqs), Reason: r.Reason,
		OnResult: func(seq uint64, err error) {
			line := struct {
				Seq     uint64 `json:"seq"`
				Applied bool   `json:"applied"`
				Error   string `json:"error,omitempty"`
			}{Seq: seq, Applied: err == nil}
			text := fmt.Sprint(seq, "  applied")
			if err != nil {
				line.Error, text = err.Error(), fmt.Sprint(seq, "  stays: ", err)
			}
			printErr = errors.Join(printErr, p.Answer(line, text))
		},
	}, nc, logger, bar)
	bar.Close()
	if err = errors.Join(err, printErr); err != nil {
		return err
	}
	fmt.Fprintf(p.Stderr, "%d applied, %d stay\n", applied, stayed)
	if stayed > 0 {
		return errNotAll
	}
	return nil
}

var errNotAll = errors.New("not all dead letters could be applied")

// Drop removes dead letters.
type Drop struct {
	Seqs    []Seq `arg:"" name:"seq" help:"their numbers, from dlq list"`
	servers `embed:""`
}

// Run drops.
func (d *Drop) Run(ctx context.Context, p *service.Process) error {
	options, nc, _, err := d.open(ctx, p, dbsettings.Indexer)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := stream.JetStream(nc, d.NATS.Domain)
	if err != nil {
		return err
	}
	n, err := indexer.DropDeadLetters(ctx, options, js, numbers(d.Seqs))
	return errors.Join(err, p.Answer(map[string]int{"removed": n}, fmt.Sprintf("%d removed", n)))
}

func numbers(seqs []Seq) []uint64 {
	out := make([]uint64, len(seqs))
	for i, s := range seqs {
		out[i] = uint64(s)
	}
	return out
}

func withStream(ctx context.Context, p *service.Process, n service.NATS, fn func(jetstream.JetStream) error) error {
	nc, err := n.Dial(ctx, p)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := stream.JetStream(nc, n.Domain)
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return fn(js)
}
