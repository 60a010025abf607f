package store

import (
	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/internal/pg"
)

// Options say how to connect.
type Options = pg.Options

// The schemas of a database.
const (
	// Live is the schema that the API reads.
	Live = pg.Live
	// Rebuilding is the one that a rebuild fills.
	Rebuilding = "tagstream_rebuild"
	// Retired is the former live one, between a switch and its removal.
	Retired = "tagstream_retired"
)

// Checkpoint is how far the fold has come: everything up to Seq of the stream
// is in the rows beside it.
type Checkpoint struct {
	Seq uint64
	// Source is the upstream position of the message at Seq. Where that one is a
	// dead letter, it is of the last event before, and Source.Seq is 0. As read
	// back its Time is the network's (event.Position.NetworkTime), which is what
	// an index is measured and pruned by.
	Source event.Position
	// Sync is a #sync whose replacement posts are not all in yet, zero where there
	// is none.
	Sync event.SyncRun
}

// State is an account's hosting state as far as the index cares.
type State int16

// The states, as they are stored.
const (
	// Active accounts' posts are visible.
	Active State = 0
	// Hidden accounts' posts are kept but seen by no one.
	Hidden State = 1
	// Deleted accounts' posts were erased; posts that come nevertheless are
	// kept hidden until the account is active again.
	Deleted State = 2
)

const (
	// HourlyTag is from how many visible posts on tag_hours is kept for a tag.
	// Of one that never had so many, a reader counts the posts themselves: most
	// tags are rare, and counters for them would cost more than they save.
	HourlyTag = 1000
	// HistoryHours is how many hours the history of a tag goes back, the one
	// under way included.
	HistoryHours = 168
)
