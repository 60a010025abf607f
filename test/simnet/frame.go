package simnet

import (
	"fmt"
	"time"

	"github.com/jcalabro/atmos/api/comatproto"
	"github.com/jcalabro/atmos/api/lextypes"
	"github.com/jcalabro/atmos/cbor"
	"github.com/jcalabro/gt"
)

// frameTime is the layout of the relay's time stamps.
const frameTime = "2006-01-02T15:04:05.000Z"

// message is a subscribeRepos body.
type message interface{ MarshalCBOR() ([]byte, error) }

// encodeFrame writes an event-stream frame: a header map and the body, both DAG-CBOR
// (https://atproto.com/specs/event-stream).
func encodeFrame(kind string, body message) ([]byte, error) {
	frame := cbor.AppendMapHeader(nil, 2)
	frame = cbor.AppendTextKey(frame, "t") // the shorter key comes first
	frame = cbor.AppendText(frame, kind)
	frame = cbor.AppendTextKey(frame, "op")
	frame = cbor.AppendUint(frame, 1)
	data, err := body.MarshalCBOR()
	if err != nil {
		return nil, fmt.Errorf("encode %s frame: %w", kind, err)
	}
	return append(frame, data...), nil
}

// errorFrame writes an error frame, after which a relay closes the connection.
func errorFrame(code, text string) []byte {
	frame := cbor.AppendMapHeader(nil, 1)
	frame = cbor.AppendTextKey(frame, "op")
	frame = cbor.AppendInt(frame, -1)
	frame = cbor.AppendMapHeader(frame, 2)
	frame = cbor.AppendTextKey(frame, "error")
	frame = cbor.AppendText(frame, code)
	frame = cbor.AppendTextKey(frame, "message")
	return cbor.AppendText(frame, text)
}

// commitFrame announces a commit that follows previous (its tree root and revision).
func commitFrame(r *repository, seq int64, at time.Time, results []OpResult, diff []byte, since string, prevRoot cbor.CID) ([]byte, error) {
	ops := make([]comatproto.SyncSubscribeRepos_RepoOp, 0, len(results))
	for _, result := range results {
		op := comatproto.SyncSubscribeRepos_RepoOp{Action: string(result.Action), Path: result.Collection + "/" + result.Rkey}
		if result.CID != "" {
			op.CID = gt.Some(lextypes.LexCIDLink{Link: result.CID})
		}
		if result.prev.Defined() {
			op.Prev = gt.Some(lextypes.LexCIDLink{Link: result.prev.String()})
		}
		ops = append(ops, op)
	}
	return encodeFrame("#commit", &comatproto.SyncSubscribeRepos_Commit{
		Seq: seq, Time: at.UTC().Format(frameTime), Repo: r.did, Rev: r.rev, Since: gt.Some(since), Ops: ops, Blocks: diff,
		Commit: lextypes.LexCIDLink{Link: r.head.String()}, PrevData: gt.Some(lextypes.LexCIDLink{Link: prevRoot.String()}),
	})
}

// syncFrame announces the head without the changes that led to it.
func syncFrame(r *repository, seq int64, at time.Time) ([]byte, error) {
	head, err := r.headCAR()
	if err != nil {
		return nil, err
	}
	return encodeFrame("#sync", &comatproto.SyncSubscribeRepos_Sync{
		Seq: seq, Time: at.UTC().Format(frameTime), DID: r.did, Rev: r.rev, Blocks: head,
	})
}

// accountFrame announces a hosting status.
func accountFrame(did string, seq int64, at time.Time, active bool, status string) ([]byte, error) {
	body := &comatproto.SyncSubscribeRepos_Account{Seq: seq, Time: at.UTC().Format(frameTime), DID: did, Active: active}
	if status != "" {
		body.Status = gt.Some(status)
	}
	return encodeFrame("#account", body)
}

// identityFrame announces a handle.
func identityFrame(did string, seq int64, at time.Time, handle string) ([]byte, error) {
	return encodeFrame("#identity", &comatproto.SyncSubscribeRepos_Identity{
		Seq: seq, Time: at.UTC().Format(frameTime), DID: did, Handle: gt.Some(handle),
	})
}

// infoFrame is an advisory, such as OutdatedCursor.
func infoFrame(name, text string) ([]byte, error) {
	return encodeFrame("#info", &comatproto.SyncSubscribeRepos_Info{Name: name, Message: gt.Some(text)})
}

// frame is an encoded frame and its account.
type frame struct {
	did  string
	sync bool // a #sync for which servers fetch the repository
	data []byte
}
