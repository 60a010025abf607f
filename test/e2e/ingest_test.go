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
	b := newIngestBench(t, 3)
	host := b.host()
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
	_, err = b.net.UpdatePost(did, first.Rkey, simnet.NewPost(b.net.Now(), "one again", "music"))
	require.NoError(t, err)
	_, err = b.net.UpdatePost(did, second.Rkey, simnet.NewPost(b.net.Now(), "no more"))
	require.NoError(t, err)
	_, err = b.net.DeletePost(did, first.Rkey)
	require.NoError(t, err)
	_, err = b.net.SetAccountStatus(did, false, "takendown")
	require.NoError(t, err)
	_, err = b.net.SetAccountStatus(did, true, "")
	require.NoError(t, err)
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
