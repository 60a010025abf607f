package e2e_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/simnet"
)

func TestIngestPublishesRelevantEvents(t *testing.T) {
	t.Parallel()
	b, host := newIngest(t, 3)
	run := b.ingest(ingest.Config{Hosts: []string{host.URL()}, Start: "archive"})
	run.awaitReady()
	did := b.net.DIDs()[0]

	first := b.post("one", "Art", "photo")
	b.post("none")
	second := b.post("two", "art")
	reply := simnet.NewPost(b.net.Now(), "a reply", "art")
	reply["reply"] = map[string]any{"parent": map[string]any{"uri": first.URI, "cid": first.CID}}
	_, err := b.net.CreatePost(did, "", reply)
	require.NoError(t, err)
	b.update(first, "one again", "music")
	b.update(second, "no more")
	b.remove(first)
	b.setStatus(did, false, "takendown")
	b.setStatus(did, true, "")
	require.NoError(t, b.net.Await(b.ctx, host))

	events := b.awaitEvents(7)
	kinds := make([]event.Kind, len(events))
	for i, e := range events {
		kinds[i] = e.Kind
		require.Equal(t, did, e.DID)
		require.Equal(t, host.URL(), e.Source.Host)
	}
	require.Equal(t, []event.Kind{"create", "create", "update", "remove", "delete", "account", "account"}, kinds)
	require.Equal(t, []string{"art", "photo"}, events[0].Tags)
	require.Equal(t, first.CID, events[0].CID)
	require.Equal(t, first.Rev, events[0].Rev)
	require.Equal(t, []string{"music"}, events[2].Tags)
	require.Equal(t, "takendown", events[5].Status)
	require.True(t, events[6].Active)
	var record struct{ Text string }
	require.NoError(t, json.Unmarshal(events[2].Record, &record))
	require.Equal(t, "one again #music", record.Text)
	require.Equal(t, 1.0, run.counter("events_dropped_total", "reply"))
	require.Equal(t, 1.0, run.counter("events_dropped_total", "no_tags"))
}
