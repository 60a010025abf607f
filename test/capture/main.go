// Command capture records events as the official client delivers them, for the golden files of
// services/ingest/internal/decode. It keeps every kind of event and a sample of each sort of post,
// so that files stay small.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/bluesky-social/jetstream"
)

func main() {
	host := flag.String("host", "https://jetstream.us-east.bsky.network", "Jetstream v2 host to read from")
	out := flag.String("out", "", "file to write, one event a line")
	limit := flag.Duration("for", 30*time.Second, "how long to read")
	after := flag.Int64("after", -1, "replay the archive behind this sequence number; -1 reads the live tail")
	keep := flag.Int("keep", 40, "how many events of each sort to keep")
	flag.Parse()
	if err := run(*host, *out, *limit, *after, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "capture:", err)
		os.Exit(1)
	}
}

func run(host, out string, limit time.Duration, after int64, keep int) error {
	if out == "" {
		return errors.New("-out is missing")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	opts := []jetstream.Option{
		jetstream.WithKinds([]jetstream.Kind{jetstream.KindCommit, jetstream.KindAccount, jetstream.KindSync}),
		jetstream.WithCollections([]string{"app.bsky.feed.post"}),
	}
	if after >= 0 {
		opts = append(opts, jetstream.WithAfterSeq(uint64(after)))
	}
	client, err := jetstream.Subscribe(host, opts...)
	if err != nil {
		return fmt.Errorf("read %s: %w", host, err)
	}
	defer client.Close()

	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	kept, seen := map[string]int{}, 0
	for batch, err := range client.Events(ctx) {
		if errors.Is(err, jetstream.ErrFatal) {
			return fmt.Errorf("read %s: %w", host, err)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "capture:", err)
			continue
		}
		for _, ev := range batch.Events() {
			seen++
			s := sort(ev)
			if kept[s]++; kept[s] > keep {
				continue
			}
			if ev.Commit != nil {
				ev.Commit.Record = nil // the CBOR has it exactly
			}
			line, err := json.Marshal(ev)
			if err != nil {
				return fmt.Errorf("encode event %d: %w", ev.Seq, err)
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				return err
			}
		}
	}
	for s, n := range kept {
		fmt.Fprintf(os.Stderr, "%6d of %6d %s\n", min(n, keep), n, s)
	}
	if seen == 0 {
		return fmt.Errorf("%s gave no events in %s", host, limit)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// sort returns the kind of event, for the sample.
func sort(ev jetstream.Event) string {
	if ev.Commit == nil {
		if ev.Account != nil {
			return "account " + ev.Account.Status
		}
		return string(ev.Kind)
	}
	s := string(ev.Commit.Operation)
	for _, field := range []string{"reply", "tags", "facets"} {
		if _, has := ev.Commit.Record[field]; has {
			s += " " + field
		}
	}
	return s
}
