package decode

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/bluesky-social/jetstream"
	"github.com/jcalabro/atmos/cbor"

	"github.com/tagstream/tagstream/pkg/event"
)

// FuzzDecode decodes records, identifiers and operations of any kind. For any input, decoding does
// not panic, returns a valid event or a listed reason, and is repeatable.
func FuzzDecode(f *testing.F) {
	add := func(record object) {
		data, err := cbor.Marshal(post(record))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, testDID, testRkey, testRev, "create", testTime.UnixMicro())
		f.Add(data, testDID, testRkey, testRev, "update", testTime.UnixMicro())
	}
	add(object{"tags": array{"art", int64(1), nil}, "langs": "en"})
	add(object{"facets": array{tagFacet("art"), tagFacet(nil), object{"features": object{}}}})
	add(object{"facets": object{}, "tags": "a\x00", "createdAt": int64(1)})
	add(object{"tags": array{"x"}, "x": []byte{1}, "y": 0.5, "reply": nil})
	f.Add([]byte{0xa0}, "did:web:a.b", "self", "", "delete", int64(0))
	f.Add([]byte{0x9f}, "", ".", "x", "", int64(-1))

	f.Fuzz(func(t *testing.T, record []byte, did, rkey, rev, op string, timeUS int64) {
		ev := &jetstream.Event{
			DID: did, Seq: uint64(timeUS), TimeUS: timeUS, Kind: jetstream.KindCommit,
			Commit: &jetstream.Commit{
				Operation: jetstream.Operation(op), Collection: event.Collection, Rkey: rkey, Rev: rev, RecordCBOR: record,
			},
		}
		d := decoder()
		d.MaxPayload = 4096
		res := d.Decode(ev, at(ev))
		if res.Event == nil {
			if !slices.Contains(DropReasons, res.Drop) {
				t.Fatalf("dropped for %q, which is not listed", res.Drop)
			}
			return
		}
		if res.Drop != Kept {
			t.Fatalf("an event and the reason %q", res.Drop)
		}
		data, err := res.Event.Encode()
		if err != nil {
			t.Fatalf("encode: %v", err)
		}
		if len(data) > d.MaxPayload && res.Event.Kind != event.KindRemove && res.Event.Kind != event.KindDelete {
			t.Fatalf("%d bytes are over the limit", len(data))
		}
		back, err := event.Decode(data)
		if err != nil {
			t.Fatalf("the stream would refuse it: %v\n%s", err, data)
		}
		if res.Event.Record != nil && !json.Valid(res.Event.Record) {
			t.Fatalf("the record is not JSON: %s", res.Event.Record)
		}
		again, err := back.Encode()
		if err != nil || string(again) != string(data) {
			t.Fatalf("a round trip changes it:\n%s\n%s (%v)", data, again, err)
		}
	})
}
