package decode_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest/internal/decode"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
)

// The end of a #sync precedes the event that shows it, in any batch, even if that event is dropped,
// but not where another history begins.
func TestItems(t *testing.T) {
	t.Parallel()
	const did, rev = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "3l3qo2vutsw2b"
	open := event.OpenSync{DID: did, Rev: rev}
	seq := uint64(0)
	batch := func(syncs ...event.OpenSync) (b firehose.Batch) {
		for _, sync := range syncs {
			seq++
			b.Last = event.Position{Host: "https://a.example", Seq: seq, Time: time.Unix(int64(seq), 0).UTC(), Sync: sync}
			b.Positions = append(b.Positions, b.Last)
			b.Events = append(b.Events, jetstream.Event{Kind: jetstream.KindIdentity, DID: did})
		}
		return b
	}
	var r decode.Reading
	read := func(b firehose.Batch) string {
		var out []string
		for it := range r.Items(b) {
			require.Equal(t, decode.OtherKind, it.Drop)
			if it.SyncEnd != nil {
				require.Equal(t, event.SyncOver, it.SyncEnd.Sync)
				require.Equal(t, did, it.SyncEnd.DID)
				out = append(out, fmt.Sprint("end at ", it.SyncEnd.Source.Seq))
			}
			out = append(out, fmt.Sprint(it.At.Seq))
		}
		return strings.Join(out, ", ")
	}
	none := event.OpenSync{}
	require.Equal(t, "1, 2, 3, end at 3, 4", read(batch(none, open, open, none)))
	require.Equal(t, "5", read(batch(open)))
	require.Equal(t, "end at 5, 6, 7", read(batch(none, open)))
	require.Empty(t, read(firehose.Batch{Last: event.Position{Host: "https://b.example", Seq: 1}}))
	require.Equal(t, "8", read(batch(none)), "a #sync of another host must not be reported as over")
}
