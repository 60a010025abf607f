package reconcile

import (
	"fmt"
	"hash/maphash"
	"testing"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/jcalabro/atmos"
	"github.com/jcalabro/atmos/cbor"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest/internal/decode"
)

var begin = time.Date(2026, 8, 31, 12, 0, 0, 0, time.UTC)

// revAt returns the revision of a second.
func revAt(second int) string {
	return atmos.NewTID(begin.Add(time.Duration(second)*time.Second).UnixMicro(), 0).String()
}

func at(second int) event.Position {
	return event.Position{
		Host: "https://host.example", Seq: uint64(second), Time: begin.AddDate(-3, 0, 0), // an imported time
		Clock: begin.Add(time.Duration(second) * time.Second),
	}
}

// streamed is an event of the stream at a second.
func streamed(second int, kind event.Kind, did, rkey string) *event.Event {
	e := &event.Event{V: event.Version, Kind: kind, DID: "did:plc:" + did, Rkey: rkey, Source: at(second)}
	if kind != event.KindAccount {
		e.Rev = revAt(second)
	}
	return e
}

func status(second int, did string, active bool, status string) *event.Event {
	e := streamed(second, event.KindAccount, did, "")
	e.Active, e.Status = active, status
	return e
}

// own gives an account event its own upstream time.
func own(second int, e *event.Event) *event.Event {
	e.Upstream = &event.Upstream{Seq: 1, Time: at(second).Time}
	return e
}

// has is an event of the archive at a second.
func has(t *testing.T, second int, op jetstream.Operation, did, rkey string, tags ...any) *jetstream.Event {
	t.Helper()
	data, err := cbor.Marshal(map[string]any{"$type": event.Collection, "text": "x", "tags": tags})
	require.NoError(t, err)
	return &jetstream.Event{
		DID: "did:plc:" + did, Seq: uint64(second), TimeUS: begin.UnixMicro(), Kind: jetstream.KindCommit,
		Commit: &jetstream.Commit{Operation: op, Collection: event.Collection, Rkey: rkey, Rev: revAt(second), RecordCBOR: data},
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	// The stream has a post p of account a at second 1.
	const create, update, del = jetstream.OpCreate, jetstream.OpUpdate, jetstream.OpDelete
	live := func(t *testing.T, second int) *jetstream.Event { return has(t, second, del, "live", "x") }
	tests := map[string]struct {
		stream  []*event.Event // after the post
		archive func(t *testing.T) []*jetstream.Event
		remove  map[string]event.Kind // by record key
		unsure  uint64
		posts   uint64 // visible; 0 means 1
	}{
		"shown": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 10, create, "a", "p", "art"), live(t, 200)}
		}},
		"not shown": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 10, create, "a", "other"), live(t, 200)}
		}, remove: map[string]event.Kind{"p": event.KindDelete}},
		"shown without tags": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 10, create, "a", "p"), live(t, 200)}
		}, remove: map[string]event.Kind{"p": event.KindRemove}},
		"unknown account": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 10, create, "b", "p"), live(t, 200)}
		}},
		"account with live events only": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 10, create, "b", "p"), live(t, 200), has(t, 201, create, "a", "other")}
		}},
		"account first seen where live events begin": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 190, create, "a", "other"), live(t, 200)}
		}, unsure: 1},
		"edited since, and the archive has only the edit": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 10, create, "a", "other"), live(t, 200), has(t, 201, update, "a", "p", "art")}
		}},
		"edited since, without tags": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 10, create, "a", "p", "art"), live(t, 200), has(t, 201, update, "a", "p")}
		}, remove: map[string]event.Kind{"p": event.KindRemove}},
		"written after the download": {
			stream: []*event.Event{streamed(20, event.KindCreate, "a", "new")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "p", "art"), live(t, 200)}
			}, posts: 2,
		},
		"edited after the download": {
			stream: []*event.Event{streamed(20, event.KindUpdate, "a", "p")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "other"), live(t, 200)}
			},
		},
		"deleted in the stream": {
			stream: []*event.Event{streamed(5, event.KindDelete, "a", "p"), streamed(2, event.KindCreate, "a", "q")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "q", "art"), live(t, 200)}
			},
		},
		"hidden": {
			stream: []*event.Event{status(5, "a", false, "takendown"), streamed(1, event.KindCreate, "b", "q")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "other"), live(t, 200)}
			},
		},
		"hidden and back": {
			stream: []*event.Event{status(5, "a", false, "takendown"), status(6, "a", true, ""), status(4, "a", false, "suspended")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "other"), live(t, 200)}
			}, remove: map[string]event.Kind{"p": event.KindDelete},
		},
		"hidden despite a late status": {
			stream: []*event.Event{own(6, status(5, "a", false, "takendown")), own(4, status(7, "a", true, "")), streamed(1, event.KindCreate, "b", "q")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "other"), live(t, 200)}
			},
		},
		"throttled": {
			stream: []*event.Event{status(5, "a", false, "throttled")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "other"), live(t, 200)}
			}, remove: map[string]event.Kind{"p": event.KindDelete},
		},
		"erased and back": {
			stream: []*event.Event{status(5, "a", false, "deleted"), status(6, "a", true, ""), streamed(7, event.KindCreate, "a", "q")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "q", "art"), live(t, 200)}
			},
		},
		"replaced": {
			stream: []*event.Event{streamed(5, event.KindSync, "a", ""), streamed(5, event.KindCreate, "a", "q")},
			archive: func(t *testing.T) []*jetstream.Event {
				return []*jetstream.Event{has(t, 10, create, "a", "q", "art"), live(t, 200)}
			},
		},
		"no live events": {archive: func(t *testing.T) []*jetstream.Event {
			return []*jetstream.Event{has(t, 10, create, "a", "other")}
		}, remove: map[string]event.Kind{"p": event.KindDelete}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, parts := range []uint64{1, 3} {
				r := &Reconcile{seed: maphash.MakeSeed(), removals: map[uint64]removal{}}
				events := append([]*event.Event{streamed(1, event.KindCreate, "a", "p")}, tt.stream...)
				for part := range parts {
					k := newKnown(r.seed, part, parts, 100)
					for _, e := range events {
						require.NoError(t, k.fold(e))
					}
					a := &archive{known: k, margin: DefaultMargin}
					for _, e := range tt.archive(t) {
						a.event(decode.Decoder{MaxPayload: 1 << 20}, e, at(int(e.Seq)))
					}
					if !a.ended {
						a.end(at(300).Clock)
					}
					r.summary.Unsure += a.unsure
					require.NoError(t, r.collect(k))
				}
				got := map[string]event.Kind{}
				for _, e := range events {
					if rm, ok := r.removals[maphash.String(r.seed, e.URI())]; ok && e.Rkey != "" {
						got[e.Rkey] = rm.kind
						require.Equal(t, revAt(10), string(rm.rev[:]), "it must have the archive's revision")
						require.Equal(t, at(10), rm.at)
					}
				}
				if tt.remove == nil {
					tt.remove = map[string]event.Kind{}
				}
				require.Equal(t, tt.remove, got)
				require.Equal(t, tt.unsure, r.summary.Unsure)
				require.Equal(t, max(tt.posts, 1), r.summary.Posts)
			}
		})
	}
}

func TestConclusions(t *testing.T) {
	t.Parallel()
	const dry = "a dry run publishes nothing"
	tooMany := fmt.Errorf("%w: 9.00 %% of all, allowed are 5.00 %%", ErrTooMany)
	for name, tt := range map[string]struct {
		found  Summary
		dryRun bool
		err    error
		why    string // "" means complete
	}{
		"removed":                      {found: Summary{Deleted: 2, Unqualified: 1, Published: 3}},
		"nothing to remove":            {found: Summary{Posts: 7, Archived: 2}},
		"a dry run that finds nothing": {found: Summary{Posts: 7, Archived: 2, Unsure: 1}, dryRun: true},
		"nothing could be compared": {found: Summary{Posts: 7, Unsure: 2},
			why: "nothing was compared: the archive shows none of the accounts, or not apart from its live events"},
		"no posts":                          {},
		"a dry run that finds deleted ones": {found: Summary{Deleted: 1}, dryRun: true, why: dry},
		"a dry run that finds others":       {found: Summary{Unqualified: 1}, dryRun: true, why: dry},
		"a dry run that finds too many":     {found: Summary{Deleted: 9}, dryRun: true, err: tooMany, why: tooMany.Error()},
		"too many":                          {found: Summary{Deleted: 9}, err: tooMany, why: tooMany.Error()},
		"failed before it found anything":   {err: errFull, why: errFull.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.found.conclude(tt.dryRun, tt.err)
			require.Equal(t, tt.why, tt.found.Why)
			require.Equal(t, tt.why == "", tt.found.Complete)
		})
	}
}

func TestKnownIsBounded(t *testing.T) {
	t.Parallel()
	k := newKnown(maphash.MakeSeed(), 0, 1, 100)
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = k.fold(streamed(1, event.KindCreate, fmt.Sprint("a", n/10), fmt.Sprint(n)))
	}
	require.ErrorIs(t, err, errFull)
	require.Equal(t, 91, n, "posts and accounts must count")
}
