package firehose

import (
	"testing"

	"github.com/bluesky-social/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// A #sync of a host is tracked through dropped events.
func TestSyncs(t *testing.T) {
	t.Parallel()
	sync := func(did, rev string) *jetstream.Event {
		return &jetstream.Event{DID: did, Kind: jetstream.KindSync, Sync: &jetstream.Sync{Rev: rev}}
	}
	commit := func(op jetstream.Operation, did, rev string) *jetstream.Event {
		return &jetstream.Event{DID: did, Kind: jetstream.KindCommit, Commit: &jetstream.Commit{Operation: op, Collection: "app.bsky.feed.like", Rev: rev}}
	}
	const first, later, a, b = "3l3qo2vutsw2b", "3l3qo2vutsw2c", "did:plc:a", "did:plc:b"
	var s event.OpenSync
	for i, step := range []struct {
		ev   *jetstream.Event
		open string // the account, and the revision of its replacements
	}{
		{commit(jetstream.OpCreate, a, first), ""},
		{sync(a, first), a},
		{commit(jetstream.OpCreate, a, later), a + later}, // a like, or a post without tags
		{commit(jetstream.OpCreate, a, later), a + later},
		{commit(jetstream.OpUpdate, a, later), ""},
		{commit(jetstream.OpCreate, a, later), ""},
		{sync(a, first), a},
		{&jetstream.Event{DID: a, Kind: jetstream.KindIdentity}, ""},
		{sync(a, first), a},
		{sync(b, first), b},
		{commit(jetstream.OpCreate, a, first), ""},
		{sync(a, "none"), ""},
		{&jetstream.Event{DID: a, Kind: jetstream.KindCommit}, ""},
	} {
		s = s.After(outline(step.ev))
		require.Equal(t, step.open, s.DID+s.Fixed, i)
	}
}
