package reconcile

import (
	"context"
	"time"

	"github.com/bluesky-social/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/services/ingest/internal/decode"
	"github.com/tagstream/tagstream/services/ingest/internal/firehose"
)

// archive compares an archive with what is known.
type archive struct {
	known  *known
	margin time.Duration
	// ended reports that the downloads are over; live events follow.
	ended bool
	// unsure counts accounts that appear only where the downloads end.
	unsure uint64
}

// read reads a host's history from its beginning to the present.
func (a *archive) read(ctx context.Context, reader *firehose.Reader, maxPayload int) error {
	d := decode.Decoder{MaxPayload: maxPayload}
	for batch, err := range reader.Read(ctx, event.Position{}) {
		if err != nil {
			return err
		}
		for i := range batch.Events {
			a.event(d, &batch.Events[i], batch.Positions[i])
		}
	}
	if !a.ended {
		a.end(time.Now())
	}
	return nil
}

// event adds an event of the archive. The first one that is not a create is live, and so are all
// later ones. An account's first events are those of its download: live ones have newer revisions.
// Live creates still show which posts exist: of an edited post, a host has only the edit.
func (a *archive) event(d decode.Decoder, ev *jetstream.Event, pos event.Position) {
	if ev.Kind != jetstream.KindCommit || ev.Commit == nil || ev.Commit.Operation != jetstream.OpCreate {
		if !a.ended {
			a.end(madeAt(ev, pos))
		}
		if ev.Kind != jetstream.KindCommit || ev.Commit == nil {
			return
		}
	}
	_, acc := a.known.account(ev.DID, false)
	c := ev.Commit
	if acc == nil || c.Collection != event.Collection || !event.ValidRev(c.Rev) {
		return
	}
	if !a.ended && acc.archived == (rev{}) {
		acc.archived, acc.at = revOf(c.Rev), pos
	}
	id := a.known.hash(event.URI(ev.DID, c.Rkey))
	p, ok := a.known.posts[id]
	if !ok {
		return
	}
	switch res := d.Decode(ev, pos); {
	case c.Operation == jetstream.OpDelete:
		p.shown = absent
	case res.Event == nil || res.Event.Kind == event.KindRemove:
		p.shown = unqualified
	default:
		p.shown = present
	}
	a.known.posts[id] = p
}

// madeAt returns the event's own time or, if it has none, the clock.
func madeAt(ev *jetstream.Event, pos event.Position) time.Time {
	rev := ""
	switch {
	case ev.Commit != nil:
		rev = ev.Commit.Rev
	case ev.Sync != nil:
		rev = ev.Sync.Rev
	}
	if made, ok := event.RevTime(rev); ok {
		return made
	}
	return pos.NetworkTime()
}

// end is called with the network time at the first live event. Events made shortly before it may be
// live as well.
func (a *archive) end(t time.Time) {
	a.ended = true
	for _, acc := range a.known.accounts {
		if made, _ := event.RevTime(string(acc.archived[:])); made.After(t.Add(-a.margin)) {
			acc.archived = rev{}
			a.unsure++
		}
	}
}
