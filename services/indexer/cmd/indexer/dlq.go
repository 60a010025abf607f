package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// dlq is the word before the commands on dead letters; alone it is "dlq list".
const dlq = "dlq"

// splitArgs joins the two words of a command on dead letters to one name, and
// takes out the operands behind it: package service knows flags only.
func splitArgs(args []string) (rest, operands []string) {
	if len(args) == 0 || args[0] != dlq {
		return args, nil
	}
	name, rest := "list", args[1:]
	isWord := func() bool { return len(rest) > 0 && !strings.HasPrefix(rest[0], "-") }
	if isWord() {
		name, rest = rest[0], rest[1:]
	}
	for isWord() {
		operands, rest = append(operands, rest[0]), rest[1:]
	}
	return append([]string{dlq + " " + name}, rest...), operands
}

// defaultLimit is how many dead letters are listed.
const defaultLimit = 100

func deadLetterCommands(operands []string, out *os.File) []service.Command {
	limit, reason, all := defaultLimit, "", false
	reasonFlag := func(fs *flag.FlagSet) {
		fs.StringVar(&reason, "reason", "", "only those with this `REASON`: unknown_version, invalid or rejected")
	}
	return []service.Command{
		{
			Name: dlq + " list", Summary: "list the messages that could not be applied, the newest first",
			Flags: func(fs *flag.FlagSet) {
				fs.IntVar(&limit, "limit", limit, "list at most `N`")
				reasonFlag(fs)
			},
			Run: func(ctx context.Context, v *service.Values) error {
				if len(operands) > 0 {
					return usage("dlq list", "unexpected argument %q", operands[0])
				}
				if limit < 1 {
					return usage("--limit", "%d is not above zero", limit)
				}
				if err := knownReason(reason); err != nil {
					return err
				}
				return withStream(ctx, v, func(js jetstream.JetStream) error { return list(ctx, js, limit, reason, out, os.Stderr) })
			},
		},
		{
			Name: dlq + " show", Summary: "show one of them as it is: dlq show SEQ",
			Run: func(ctx context.Context, v *service.Values) error {
				seqs, err := numbers("dlq show", operands)
				if err != nil {
					return err
				}
				if len(seqs) != 1 {
					return usage("dlq show", "give the number of one dead letter, from dlq list")
				}
				return withStream(ctx, v, func(js jetstream.JetStream) error { return show(ctx, js, seqs[0], out) })
			},
		},
		{
			Name: dlq + " redrive", Summary: "apply them at their place in the stream: dlq redrive SEQ..., or --all, or --reason",
			Flags: func(fs *flag.FlagSet) {
				fs.BoolVar(&all, "all", false, "every dead letter")
				reasonFlag(fs)
			},
			Run: func(ctx context.Context, v *service.Values) error {
				seqs, err := numbers("dlq redrive", operands)
				switch {
				case err != nil:
					return err
				case len(seqs) > 0 && (all || reason != ""), all && reason != "":
					return usage("dlq redrive", "give numbers, or --all or --reason, not both")
				case len(seqs) == 0 && !all && reason == "":
					return usage("dlq redrive", "say which: numbers from dlq list, --all, or --reason REASON")
				}
				if err := knownReason(reason); err != nil {
					return err
				}
				return redrive(ctx, v, seqs, reason, out)
			},
		},
		{
			Name: dlq + " drop", Summary: "remove some without applying them: dlq drop SEQ...",
			Run: func(ctx context.Context, v *service.Values) error {
				seqs, err := numbers("dlq drop", operands)
				if err != nil {
					return err
				}
				if len(seqs) == 0 {
					return usage("dlq drop", "give the numbers of dead letters, from dlq list")
				}
				return drop(ctx, v, seqs, out)
			},
		},
	}
}

// knownReason refuses a misspelt reason, which would look as if there were no
// dead letters.
func knownReason(reason string) error {
	if reason != "" && !slices.Contains(apply.Reasons, apply.Reason(reason)) {
		return usage("--reason", "%q is not unknown_version, invalid or rejected", reason)
	}
	return nil
}

func numbers(command string, operands []string) ([]uint64, error) {
	var seqs []uint64
	for _, s := range operands {
		seq, err := strconv.ParseUint(s, 10, 64)
		if err != nil || seq == 0 {
			return nil, usage(command, "%q is not the number of a message", s)
		}
		seqs = append(seqs, seq)
	}
	return seqs, nil
}

func withStream(ctx context.Context, v *service.Values, fn func(jetstream.JetStream) error) error {
	logger := service.Logger(v, os.Stderr)
	if err := v.Err(); err != nil {
		return err
	}
	nc, err := connect(ctx, v, logger)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := stream.JetStream(nc, v.String("NATS_DOMAIN"))
	if err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	return fn(js)
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

func jsonLines(out io.Writer) *json.Encoder {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc
}

var errEnough = errors.New("enough")

// list prints dead letters: a table on a terminal, else JSON lines.
func list(ctx context.Context, js jetstream.JetStream, limit int, reason string, out *os.File, notes io.Writer) error {
	n := 0
	print, flush := letterPrinter(out, isTerminal(out))
	err := stream.EachDeadLetter(ctx, js, func(d stream.DeadLetter) error {
		switch {
		case reason != "" && d.Reason != reason:
			return nil
		case n == limit:
			return errEnough
		}
		n++
		return print(d)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if flushErr := flush(); flushErr != nil {
		return flushErr
	}
	switch {
	case err != nil:
		fmt.Fprintf(notes, "there are more than these %d; --limit shows more\n", limit)
	case n == 0:
		fmt.Fprintln(notes, "no dead letters")
	}
	return nil
}

func letterPrinter(out io.Writer, table bool) (print func(stream.DeadLetter) error, flush func() error) {
	if !table {
		enc := jsonLines(out)
		return func(d stream.DeadLetter) error { return enc.Encode(lineOf(d)) }, func() error { return nil }
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SEQ\tAT\tREASON\tBYTES\tERROR")
	return func(d stream.DeadLetter) error {
		_, err := fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\n", d.Seq, d.At.Format(time.DateTime), plain(d.Reason), len(d.Payload), plain(d.Error))
		return err
	}, w.Flush
}

// show prints one dead letter with its payload, indented where that is JSON; as
// one line of JSON where out is no terminal.
func show(ctx context.Context, js jetstream.JetStream, seq uint64, out *os.File) error {
	d, err := stream.GetDeadLetter(ctx, js, seq)
	if err != nil {
		return err
	}
	return showLetter(d, out, isTerminal(out))
}

func showLetter(d stream.DeadLetter, out io.Writer, person bool) error {
	if !person {
		line := lineOf(d)
		line.Payload = string(d.Payload)
		if utf8.Valid(d.Payload) && json.Valid(d.Payload) {
			line.Payload = json.RawMessage(d.Payload)
		}
		return jsonLines(out).Encode(line)
	}
	var payload bytes.Buffer
	if json.Indent(&payload, d.Payload, "", "  ") != nil {
		payload.Reset()
		payload.WriteString(strconv.QuoteToASCII(string(d.Payload)))
	}
	if len(d.Payload) == 0 {
		payload.Reset()
		payload.WriteString("(the message was too big to be copied)")
	}
	_, err := fmt.Fprintf(out, "seq     %d\nat      %s\nreason  %s\nerror   %s\nbytes   %d\n\n%s\n",
		d.Seq, d.At.Format(time.RFC3339Nano), plain(d.Reason), plain(d.Error), len(d.Payload), plainLines(payload.String()))
	return err
}

// plain keeps what messages say from steering the terminal.
func plain(s string) string { return strings.ReplaceAll(plainLines(s), "\n", ".") }

func plainLines(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '.'
		}
		return r
	}, s)
}

func redrive(ctx context.Context, v *service.Values, seqs []uint64, reason string, out *os.File) error {
	logger, database, err := settings(v, writer)
	if err != nil {
		return err
	}
	nc, err := connect(ctx, v, logger)
	if err != nil {
		return err
	}
	defer nc.Close()
	person, enc := isTerminal(out), jsonLines(out)
	var printErr error
	bar := obs.NewBar(os.Stderr, logger, "reading the stream", "messages")
	applied, stayed, err := indexer.Redrive(ctx, indexer.RedriveConfig{
		Database: database, ID: nuid.Next(), Domain: v.String("NATS_DOMAIN"), Seqs: seqs, Reason: reason,
		OnResult: func(seq uint64, err error) {
			line := struct {
				Seq     uint64 `json:"seq"`
				Applied bool   `json:"applied"`
				Error   string `json:"error,omitempty"`
			}{Seq: seq, Applied: err == nil}
			text := "applied"
			if err != nil {
				line.Error, text = err.Error(), "stays: "+plain(err.Error())
			}
			if person {
				_, err = fmt.Fprintf(out, "%d  %s\n", seq, text)
			} else {
				err = enc.Encode(line)
			}
			printErr = errors.Join(printErr, err)
		},
	}, nc, logger, bar)
	bar.Close()
	if err = errors.Join(err, printErr); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d applied, %d stay\n", applied, stayed)
	if stayed > 0 {
		return errNotAll
	}
	return nil
}

func drop(ctx context.Context, v *service.Values, seqs []uint64, out *os.File) error {
	logger, database, err := settings(v, writer)
	if err != nil {
		return err
	}
	nc, err := connect(ctx, v, logger)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := stream.JetStream(nc, v.String("NATS_DOMAIN"))
	if err != nil {
		return err
	}
	n, err := indexer.DropDeadLetters(ctx, database, js, seqs)
	if isTerminal(out) {
		_, printErr := fmt.Fprintf(out, "%d removed\n", n)
		return errors.Join(err, printErr)
	}
	return errors.Join(err, jsonLines(out).Encode(map[string]int{"removed": n}))
}
