package decode

import (
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/jcalabro/atmos/cbor"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

func profileCommit(t testing.TB, op jetstream.Operation, record any) *jetstream.Event {
	t.Helper()
	ev := commit(t, op, record)
	ev.Commit.Collection, ev.Commit.Rkey = event.ProfileCollection, event.ProfileRkey
	return ev
}

func identity(handle, at string) *jetstream.Event {
	return &jetstream.Event{
		DID: testDID, Seq: 42, TimeUS: testTime.UnixMicro(), Kind: jetstream.KindIdentity,
		Identity: &jetstream.Identity{DID: testDID, Handle: handle, Seq: 7, Time: at},
	}
}

// TestAuthor has a case for each kind of profile and identity.
func TestAuthor(t *testing.T) {
	t.Parallel()
	cid := cbor.ComputeCID(cbor.CodecRaw, []byte("a picture"))
	labels := func(vals ...any) object {
		var values array
		for _, v := range vals {
			values = append(values, object{"val": v})
		}
		return object{"$type": "com.atproto.label.defs#selfLabels", "values": values}
	}
	change := func(change func(*jetstream.Event)) *jetstream.Event {
		ev := profileCommit(t, jetstream.OpCreate, object{})
		change(ev)
		return ev
	}
	for _, c := range []struct {
		name    string
		ev      *jetstream.Event
		profile *event.Profile
		handle  *event.Handle
		drop    DropReason
	}{
		{name: "a profile", ev: profileCommit(t, jetstream.OpCreate, object{
			"$type": event.ProfileCollection, "displayName": " Alice\u202e ", "description": "not kept",
			"avatar": object{"$type": "blob", "ref": cid, "mimeType": "image/png", "size": int64(9)},
		}), profile: &event.Profile{DisplayName: "Alice", Avatar: cid.String()}},
		{name: "an update, opted out", ev: profileCommit(t, jetstream.OpUpdate, object{"labels": labels("bot", "!no-unauthenticated")}), profile: &event.Profile{OptedOut: true}},
		{name: "other labels", ev: profileCommit(t, jetstream.OpUpdate, object{"labels": labels("bot", int64(1), nil)}), profile: &event.Profile{}},
		{name: "a deletion", ev: profileCommit(t, jetstream.OpDelete, nil), profile: &event.Profile{}},
		{name: "an avatar of the oldest form", ev: profileCommit(t, jetstream.OpCreate, object{"avatar": object{"cid": "bafkreiold", "mimeType": "image/png"}}), profile: &event.Profile{Avatar: "bafkreiold"}},
		{name: "fields of other types", ev: profileCommit(t, jetstream.OpCreate, object{"displayName": int64(3), "avatar": "x", "labels": array{"!no-unauthenticated"}}), profile: &event.Profile{}},
		{name: "an avatar that is none", ev: profileCommit(t, jetstream.OpCreate, object{"avatar": object{"cid": "../\x00"}}), profile: &event.Profile{}},
		{name: "a long name", ev: profileCommit(t, jetstream.OpCreate, object{"displayName": strings.Repeat("x", 10_000)}), profile: &event.Profile{DisplayName: strings.Repeat("x", 64)}},
		{name: "no object", ev: profileCommit(t, jetstream.OpUpdate, array{}), drop: BadRecord},
		{name: "no record", ev: profileCommit(t, jetstream.OpUpdate, nil), drop: BadRecord},
		{name: "another operation", ev: profileCommit(t, "merge", object{}), drop: BadOperation},
		{name: "another record key", ev: change(func(ev *jetstream.Event) { ev.Commit.Rkey = "other" }), drop: BadRkey},
		{name: "no revision", ev: change(func(ev *jetstream.Event) { ev.Commit.Rev = "1" }), drop: BadRev},
		{name: "no DID", ev: change(func(ev *jetstream.Event) { ev.DID = "alice" }), drop: BadDID},
		{name: "no commit", ev: change(func(ev *jetstream.Event) { ev.Commit = nil }), drop: OtherKind},

		{name: "a handle", ev: identity("Alice.Example", "2026-08-31T11:59:58Z"), handle: &event.Handle{Name: "alice.example", Time: testTime.Truncate(time.Minute).Add(-2 * time.Second)}},
		{name: "a handle that is lost", ev: identity("handle.invalid", "2026-08-31T11:59:58Z"), handle: &event.Handle{Time: testTime.Truncate(time.Minute).Add(-2 * time.Second)}},
		{name: "a time of no use", ev: identity("alice.example", "soon"), handle: &event.Handle{Name: "alice.example", Time: testTime}},
		{name: "a time to come", ev: identity("alice.example", "2026-08-31T13:00:00Z"), handle: &event.Handle{Name: "alice.example", Time: testTime}},
		{name: "an identity without a handle", ev: identity("", "2026-08-31T11:59:58Z"), drop: NoHandle},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := decoder().Decode(c.ev, at(c.ev))
			require.Equal(t, c.drop, got.Drop)
			if c.drop != Kept {
				require.Nil(t, got.Event)
				return
			}
			require.NoError(t, got.Event.Validate())
			require.Equal(t, event.KindAuthor, got.Event.Kind)
			require.Equal(t, testDID, got.Event.DID)
			require.Equal(t, c.profile, got.Event.Profile)
			require.Equal(t, c.handle, got.Event.Handle)
			require.Equal(t, c.profile != nil, got.Event.Rev == testRev)
			data, err := got.Event.Encode()
			require.NoError(t, err)
			again, err := event.Decode(data)
			require.NoError(t, err)
			require.Equal(t, got.Event.Profile, again.Profile)
		})
	}
	require.Equal(t, BadPosition, decoder().Decode(identity("a.example", ""), event.Position{}).Drop)
}
