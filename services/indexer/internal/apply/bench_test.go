package apply_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/services/indexer/internal/apply"
)

// BenchmarkFold folds the same batches of 1000 posts into two indexes in turn, one of them without
// a change feed, and reports the feed's cost in time and on disk.
func BenchmarkFold(b *testing.B) {
	db := pgtest.Database(b)
	appliers := map[string]*apply.Applier{}
	for _, schema := range []string{store.Live, "tagstream_plain"} {
		o := store.Options{URL: db.URL, Schema: schema}
		appliers[schema] = &apply.Applier{Writer: storetest.Index(b, o), Logger: storetest.Quiet, PutDeadLetter: func(context.Context, stream.DeadLetter) error { return nil }}
	}
	const size = 1000
	rng := rand.New(rand.NewPCG(1, 1))
	zipf := rand.NewZipf(rng, 1.1, 4, 200_000)
	took := map[string]time.Duration{}
	events := 0
	for b.Loop() {
		batch := make([]stream.Message, size)
		for i := range batch {
			events++
			tags := []string{fmt.Sprint("tag", zipf.Uint64())}
			for rng.IntN(10) < 7 && len(tags) < 10 { // about three per post
				tags = append(tags, fmt.Sprint("tag", zipf.Uint64()))
			}
			tags, _ = event.Tags(tags)
			ev := create(fmt.Sprintf("3l%011d", events), 1, tags...)
			ev.DID, ev.Langs = fmt.Sprintf("did:plc:%024d", rng.IntN(100_000)), []string{"en"}
			ev.Source = event.Position{Host: "https://host.example", Seq: uint64(events), Time: eventtest.Time(events / 50)}
			batch[i] = stream.Message{Seq: uint64(events), Data: eventtest.Encode(b, ev)}
		}
		for schema, a := range appliers { // in any order
			begun := time.Now()
			require.NoError(b, a.Apply(b.Context(), batch))
			took[schema] += time.Since(begun)
		}
	}
	var feed, all int64
	require.NoError(b, pgtest.Pool(b, db.URL).QueryRow(b.Context(), `
		SELECT pg_total_relation_size('tagstream.changes') + pg_total_relation_size('tagstream.change_tags'),
		       (SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'tagstream_plain'::regnamespace AND relkind = 'r')`).Scan(&feed, &all))
	b.ReportMetric(float64(events)/took[store.Live].Seconds(), "posts/s")
	b.ReportMetric(float64(events)/took["tagstream_plain"].Seconds(), "posts/s-without")
	b.ReportMetric(took["tagstream_plain"].Seconds()/took[store.Live].Seconds(), "ratio")
	b.ReportMetric(float64(feed)/float64(events), "B/change")
	b.ReportMetric(float64(all)/float64(events), "B/post-without")
}
