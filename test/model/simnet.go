package model

import (
	"fmt"

	"github.com/jcalabro/atmos/cbor"

	"github.com/tagstream/tagstream/test/simnet"
)

// FromNetwork is FromUpstream of what a simulated network emitted; log is all
// of it, oldest first (simnet.Network.Log with no limit). The firehose gives
// events its own times, so those of the posts are unknown until CheckHTTP.
func FromNetwork(log []simnet.Entry) (*Index, error) {
	var changes []Change
	for _, entry := range log {
		posts, err := postChanges(entry)
		if err != nil {
			return nil, err
		}
		c := Change{DID: entry.DID, Rev: entry.Rev, NotBefore: entry.Time}
		switch entry.Kind {
		case simnet.KindCommit:
			changes = append(changes, posts...)
		case simnet.KindAccount:
			c.Kind, c.Active, c.Status = ChangeAccount, entry.Active, entry.Status
			changes = append(changes, c)
		case simnet.KindSync:
			// Nil means that the server knew this state already.
			if entry.Ops != nil {
				c.Kind, c.Repo = ChangeSync, posts
				changes = append(changes, c)
			}
		case simnet.KindIdentity:
		default:
			return nil, fmt.Errorf("entry %d is of unknown kind %q", entry.Seq, entry.Kind)
		}
	}
	return FromUpstream(changes), nil
}

// postChanges are an entry's operations on posts.
func postChanges(entry simnet.Entry) ([]Change, error) {
	var changes []Change
	for _, op := range entry.Ops {
		if op.Collection != simnet.PostCollection {
			continue
		}
		c := Change{DID: entry.DID, Rkey: op.Rkey, Rev: entry.Rev, CID: op.CID, NotBefore: entry.Time}
		switch op.Action {
		case simnet.Create:
			c.Kind = ChangeCreate
		case simnet.Update:
			c.Kind = ChangeUpdate
		case simnet.Delete:
			c.Kind = ChangeDelete
		default:
			return nil, fmt.Errorf("%s: unknown action %q", op.URI, op.Action)
		}
		if op.Action != simnet.Delete {
			var err error
			if c.Record, err = recordOf(op.Record); err != nil {
				return nil, fmt.Errorf("record of %s: %w", op.URI, err)
			}
		}
		changes = append(changes, c)
	}
	return changes, nil
}

// recordOf reads a record's DAG-CBOR as the values of its JSON form.
func recordOf(data []byte) (map[string]any, error) {
	value, err := cbor.Unmarshal(data)
	if err != nil {
		return nil, err
	}
	text, err := cbor.ToJSON(value)
	if err != nil {
		return nil, err
	}
	var record map[string]any
	return record, decodeJSON(text, &record)
}
