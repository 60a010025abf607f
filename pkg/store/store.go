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
	// Rebuilding is the schema that a rebuild fills.
	Rebuilding = "tagstream_rebuild"
	// Retired is the former live schema, between a switch and its removal.
	Retired = "tagstream_retired"
)

// Checkpoint is the progress of the fold: everything up to Seq of the stream is in the rows next to
// it.
type Checkpoint struct {
	Seq uint64
	// Source is the upstream position of the message at Seq. If that message is a dead letter,
	// Source is that of the last event before it, and Source.Seq is 0. When read back, its Time is
	// network time (event.Position.NetworkTime), by which an index is measured and pruned.
	Source event.Position
	// Sync is a #sync whose replacements are not complete yet, zero if there is none.
	Sync event.SyncRun
}

// State is an account's hosting state as far as the index needs it.
type State int16

// The states, as stored. Statements that need Active posts say state = 0.
const (
	// Active accounts' posts are visible.
	Active State = 0
	// Hidden accounts' posts are stored but not visible.
	Hidden State = 1
	// Deleted accounts' posts were erased. Later posts are stored but hidden until the account is
	// active again.
	Deleted State = 2
)

const (
	// HourlyTag is the number of visible posts from which tag_hours has counts for a tag. For a tag
	// that never had so many, readers count the posts themselves: most tags are rare, and counters
	// for them would cost more than they save.
	HourlyTag = 1000
	// HistoryHours is the length of a tag's history in hours, including the current one.
	HistoryHours = 168
)
