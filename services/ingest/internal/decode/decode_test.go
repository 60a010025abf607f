package decode

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/jcalabro/atmos/cbor"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

const (
	testDID  = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	testRkey = "3l3qo2vuowo2b"
	testRev  = "3l3qo2vutsw2b"
)

var testTime = time.Date(2026, 8, 31, 12, 0, 0, 123456000, time.UTC)

func decoder() Decoder {
	return Decoder{MaxPayload: 1 << 20}
}

// commit is a post's commit with a record, nil for none.
func commit(t testing.TB, op jetstream.Operation, record any) *jetstream.Event {
	t.Helper()
	c := &jetstream.Commit{Operation: op, Collection: event.Collection, Rkey: testRkey, Rev: testRev}
	if record != nil {
		data, err := cbor.Marshal(record)
		require.NoError(t, err)
		c.RecordCBOR = data
	}
	return &jetstream.Event{DID: testDID, Seq: 42, TimeUS: testTime.UnixMicro(), Kind: jetstream.KindCommit, Commit: c}
}

// at returns an event's position on a host.
func at(ev *jetstream.Event) event.Position {
	return event.Position{Host: "https://host.example", Seq: ev.Seq, Time: time.UnixMicro(ev.TimeUS).UTC()}
}

// object and array are CBOR values.
type (
	object = map[string]any
	array  = []any
)

func tagFacet(tag any) object {
	return object{
		"index":    object{"byteStart": int64(0), "byteEnd": int64(3)},
		"features": array{object{"$type": "app.bsky.richtext.facet#tag", "tag": tag}},
	}
}

// post is a root post with the given fields in addition to the usual ones.
func post(fields object) object {
	p := object{"$type": event.Collection, "text": "x", "createdAt": "2026-08-31T11:59:59Z"}
	maps.Copy(p, fields)
	return p
}

func TestTags(t *testing.T) {
	t.Parallel()
	mention := object{"$type": "app.bsky.richtext.facet#mention", "did": "did:plc:x"}
	tests := map[string]struct {
		record  object
		want    []string // nil: dropped for lack of tags
		dropped int
	}{
		"facets in order, then tags": {
			record: object{"facets": array{tagFacet("B"), tagFacet("a")}, "tags": array{"c", "B"}},
			want:   []string{"b", "a", "c"},
		},
		"several features": {
			record: object{"facets": array{object{"features": array{
				mention, object{"$type": tagFeature, "tag": "one"}, object{"$type": tagFeature, "tag": "two"},
			}}}},
			want: []string{"one", "two"},
		},
		"tags is a text":               {record: object{"tags": "#Art"}},
		"tags holds what is no text":   {record: object{"tags": array{"good", int64(7), nil, object{"a": int64(1)}, "art"}}, want: []string{"good", "art"}, dropped: 3},
		"tags is a number":             {record: object{"tags": int64(7)}},
		"tags is null":                 {record: object{"tags": nil}},
		"tags is empty":                {record: object{"tags": array{}}},
		"facets is an object":          {record: object{"facets": tagFacet("art")}},
		"facets is an empty object":    {record: object{"facets": object{}, "tags": array{"art"}}, want: []string{"art"}},
		"facets is a number":           {record: object{"facets": int64(1), "tags": array{"art"}}, want: []string{"art"}},
		"facets hold anything":         {record: object{"facets": array{nil, int64(3), "x", array{}, object{}, object{"features": nil}, object{"features": array{nil, "y"}}, tagFacet("art")}}, want: []string{"art"}},
		"a feature without a tag":      {record: object{"facets": array{object{"features": array{object{"$type": tagFeature}}}, tagFacet("art")}}, want: []string{"art"}, dropped: 1},
		"a tag that is a number":       {record: object{"facets": array{tagFacet(int64(1)), tagFacet("art")}}, want: []string{"art"}, dropped: 1},
		"features is an object":        {record: object{"facets": array{object{"features": object{"$type": tagFeature, "tag": "art"}}}}},
		"a facet without an index":     {record: object{"facets": array{object{"features": tagFacet("art")["features"]}}}, want: []string{"art"}},
		"an unknown feature":           {record: object{"facets": array{object{"features": array{object{"$type": "x.y#tag", "tag": "no"}}}}}},
		"a tag of nothing":             {record: object{"tags": array{"#", " ", "art"}}, want: []string{"art"}, dropped: 2},
		"a tag with a NUL":             {record: object{"tags": array{"a\x00b", "art"}}, want: []string{"art"}, dropped: 1},
		"a tag of 4 KB":                {record: object{"tags": array{strings.Repeat("x", 4096), "art"}}, want: []string{"art"}, dropped: 1},
		"the text itself is not asked": {record: object{"text": "#art"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			res := decoder().Decode(commit(t, jetstream.OpCreate, post(tt.record)), event.Position{Host: "h", Time: testTime})
			if tt.want == nil {
				require.Equal(t, Result{Drop: NoTags}, res)
				return
			}
			require.Equal(t, Kept, res.Drop)
			require.NoError(t, res.Event.Validate())
			require.Equal(t, tt.want, res.Event.Tags)
			require.Equal(t, tt.dropped, res.TagsDropped)
		})
	}
}

// A glance may only refuse what building the record also refuses.
func TestGlance(t *testing.T) {
	t.Parallel()
	mention := object{"features": []any{object{"$type": "app.bsky.richtext.facet#mention", "did": "did:plc:x"}}}
	parent := object{"parent": object{"uri": "at://x"}}
	for name, c := range map[string]struct {
		record any
		want   DropReason
	}{
		"no field of tags":             {post(object{}), NoTags},
		"a mention":                    {post(object{"facets": []any{mention}}), NoTags},
		"a reply":                      {post(object{"reply": parent, "tags": []any{"art"}}), Reply},
		"a reply without tags":         {post(object{"reply": parent}), Reply},
		"no reply, said":               {post(object{"reply": nil, "tags": []any{"art"}}), Kept},
		"tags of other kinds of value": {post(object{"tags": "art"}), Kept},
		"a tag in a facet":             {post(object{"facets": []any{mention, tagFacet("art")}}), Kept},
		"the name of a tag's kind":     {post(object{"text": "app.bsky.richtext.facet#tag tags"}), NoTags},
		"no object":                    {[]any{"tags"}, Kept},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := cbor.Marshal(c.record)
			require.NoError(t, err)
			require.Equal(t, c.want, glance(raw))
			require.Equal(t, Kept, glance(raw[:len(raw)-1]), "truncated")
			require.Equal(t, Kept, glance(append(raw, 0)), "with trailing data")
		})
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	link := cbor.ComputeCID(cbor.CodecRaw, []byte("blob"))
	tests := map[string]struct {
		record    object
		createdAt string
		langs     []string
		json      string // the field "x" of the record as JSON
	}{
		"usual":                   {record: object{"langs": array{"en", "pt-BR"}}, createdAt: "2026-08-31T11:59:59Z", langs: []string{"en", "pt-BR"}},
		"createdAt is kept as is": {record: object{"createdAt": "yesterday"}, createdAt: "yesterday"},
		"createdAt is a number":   {record: object{"createdAt": int64(17)}},
		"createdAt is null":       {record: object{"createdAt": nil}},
		"langs is a text":         {record: object{"langs": "en"}, createdAt: "2026-08-31T11:59:59Z"},
		"langs holds anything":    {record: object{"langs": array{int64(1), "en", nil, ""}}, createdAt: "2026-08-31T11:59:59Z", langs: []string{"en"}},
		"big integers":            {record: object{"createdAt": nil, "x": int64(9007199254740993)}, json: "9007199254740993"},
		"the least integer":       {record: object{"createdAt": nil, "x": int64(-9223372036854775808)}, json: "-9223372036854775808"},
		"bytes":                   {record: object{"createdAt": nil, "x": []byte{0xff, 0xfe, 0xfd, 0}}, json: `{"$bytes":"//79AA"}`},
		"links":                   {record: object{"createdAt": nil, "x": link}, json: `{"$link":"` + link.String() + `"}`},
		"nested":                  {record: object{"createdAt": nil, "x": array{nil, true, object{"b": "\x00<", "a": "é"}}}, json: `[null,true,{"a":"é","b":"\u0000\u003c"}]`},
		"a fraction":              {record: object{"createdAt": nil, "x": 1.5}, json: "1.5"},
		"text is a number":        {record: object{"createdAt": nil, "text": int64(42)}},
		"reply is null":           {record: object{"createdAt": nil, "reply": nil}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			record := post(tt.record)
			record["tags"] = array{"art"}
			ev := commit(t, jetstream.OpCreate, record)
			res := decoder().Decode(ev, at(ev))
			require.Equal(t, Kept, res.Drop)
			require.NoError(t, res.Event.Validate())
			require.Equal(t, tt.createdAt, res.Event.CreatedAt)
			require.Equal(t, tt.langs, res.Event.Langs)
			require.Equal(t, cbor.ComputeCID(cbor.CodecDagCBOR, ev.Commit.RecordCBOR).String(), res.Event.CID)
			var fields map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(res.Event.Record, &fields))
			require.Len(t, fields, len(record))
			if tt.json != "" {
				require.Equal(t, tt.json, string(fields["x"]))
			}
		})
	}
}

func TestCommits(t *testing.T) {
	t.Parallel()
	tagged := post(object{"tags": array{"art"}})
	reply := post(object{"tags": array{"art"}, "reply": object{}})
	huge := post(object{"tags": array{"art"}, "text": strings.Repeat("x", 1<<20)})
	escaped := post(object{"tags": array{"art"}, "text": strings.Repeat("<", 1<<18)})
	tests := map[string]struct {
		op     jetstream.Operation
		record any
		change func(*jetstream.Event)
		kind   event.Kind // "" means dropped
		drop   DropReason
	}{
		"create":                      {op: "create", record: tagged, kind: event.KindCreate},
		"update":                      {op: "update", record: tagged, kind: event.KindUpdate},
		"delete":                      {op: "delete", kind: event.KindDelete},
		"create of a reply":           {op: "create", record: reply, drop: Reply},
		"create without tags":         {op: "create", record: post(nil), drop: NoTags},
		"create of no object":         {op: "create", record: "art", drop: BadRecord},
		"create without a record":     {op: "create", drop: BadRecord},
		"create too big":              {op: "create", record: huge, drop: TooBig},
		"create too big when escaped": {op: "create", record: escaped, drop: TooBig},
		"update to a reply":           {op: "update", record: reply, kind: event.KindRemove},
		"update to no tags":           {op: "update", record: post(nil), kind: event.KindRemove},
		"update to no object":         {op: "update", record: array{}, kind: event.KindRemove},
		"update too big":              {op: "update", record: huge, kind: event.KindRemove},
		"update that is not CBOR": {
			op: "update", record: tagged, kind: event.KindRemove,
			change: func(e *jetstream.Event) { e.Commit.RecordCBOR = e.Commit.RecordCBOR[1:] },
		},
		"unknown operation": {op: "merge", record: tagged, drop: BadOperation},
		"other collection": {
			op: "create", record: tagged, drop: OtherCollection,
			change: func(e *jetstream.Event) { e.Commit.Collection = "app.bsky.feed.like" },
		},
		"bad did":         {op: "delete", drop: BadDID, change: func(e *jetstream.Event) { e.DID = "did:plc:a/b" }},
		"bad rkey":        {op: "delete", drop: BadRkey, change: func(e *jetstream.Event) { e.Commit.Rkey = "a\x00" }},
		"rkey is no TID":  {op: "delete", kind: event.KindDelete, change: func(e *jetstream.Event) { e.Commit.Rkey = "self:~x.y" }},
		"bad rev":         {op: "delete", drop: BadRev, change: func(e *jetstream.Event) { e.Commit.Rev = "9" }},
		"before the time": {op: "delete", drop: BadPosition, change: func(e *jetstream.Event) { e.TimeUS = -1 }},
		"after all time":  {op: "delete", drop: BadPosition, change: func(e *jetstream.Event) { e.TimeUS = 1 << 62 }},
		"no such number":  {op: "delete", drop: BadPosition, change: func(e *jetstream.Event) { e.Seq = 1 << 63 }},
		"no commit":       {op: "delete", drop: OtherKind, change: func(e *jetstream.Event) { e.Commit = nil }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev := commit(t, tt.op, tt.record)
			if tt.change != nil {
				tt.change(ev)
			}
			res := decoder().Decode(ev, at(ev))
			require.Equal(t, tt.drop, res.Drop)
			if tt.kind == "" {
				require.Nil(t, res.Event)
				require.Contains(t, DropReasons, res.Drop)
				return
			}
			require.NoError(t, res.Event.Validate())
			require.Equal(t, tt.kind, res.Event.Kind)
			require.Equal(t, event.Position{Host: "https://host.example", Seq: 42, Time: testTime}, res.Event.Source)
			require.Equal(t, testRev, res.Event.Rev)
			if tt.kind == event.KindRemove || tt.kind == event.KindDelete {
				want := &event.Event{V: event.Version, Kind: tt.kind, Source: res.Event.Source, DID: testDID, Rkey: res.Event.Rkey, Rev: testRev}
				require.Equal(t, want, res.Event, "it must have only the key")
			}
		})
	}
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	base := jetstream.Event{DID: testDID, Seq: 42, TimeUS: testTime.UnixMicro()}
	tests := map[string]struct {
		change func(*jetstream.Event)
		want   event.Event
		drop   DropReason
	}{
		"account": {
			change: func(e *jetstream.Event) {
				e.Kind, e.Account = jetstream.KindAccount, &jetstream.Account{Active: true}
			},
			want: event.Event{Kind: event.KindAccount, Active: true},
		},
		"taken down": {
			change: func(e *jetstream.Event) {
				e.Kind, e.Account = jetstream.KindAccount, &jetstream.Account{Status: "takendown", Seq: 7, Time: testTime.Add(time.Minute).Format(time.RFC3339Nano)}
			},
			want: event.Event{Kind: event.KindAccount, Status: "takendown", Upstream: &event.Upstream{Seq: 7, Time: testTime.Add(time.Minute)}},
		},
		"sync": {
			change: func(e *jetstream.Event) { e.Kind, e.Sync = jetstream.KindSync, &jetstream.Sync{Rev: testRev} },
			want:   event.Event{Kind: event.KindSync, Sync: event.SyncOpen, Rev: testRev},
		},
		"sync without a revision": {
			change: func(e *jetstream.Event) { e.Kind, e.Sync = jetstream.KindSync, &jetstream.Sync{} }, drop: BadRev,
		},
		"account without a did": {
			change: func(e *jetstream.Event) {
				e.Kind, e.Account, e.DID = jetstream.KindAccount, &jetstream.Account{}, ""
			}, drop: BadDID,
		},
		"a kind of tomorrow": {change: func(e *jetstream.Event) { e.Kind = "label" }, drop: OtherKind},
		"nothing inside":     {change: func(e *jetstream.Event) { e.Kind = jetstream.KindSync }, drop: OtherKind},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev := base
			tt.change(&ev)
			res := decoder().Decode(&ev, at(&ev))
			require.Equal(t, tt.drop, res.Drop)
			if tt.drop != Kept {
				require.Nil(t, res.Event)
				return
			}
			tt.want.V, tt.want.DID = event.Version, testDID
			tt.want.Source = event.Position{Host: "https://host.example", Seq: 42, Time: testTime}
			require.Equal(t, &tt.want, res.Event)
			require.NoError(t, res.Event.Validate())
		})
	}
}

// If the upstream time is invalid or too far in the future, an account event is ordered by the
// host's time.
func TestUpstreamTimes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		seq  int64
		time string
		want bool
	}{
		"usual":                   {7, "2026-08-31T11:59:59.123Z", true},
		"with a zone":             {7, "2026-08-31T13:59:59.123+02:00", true},
		"long ago":                {7, "1970-01-01T00:00:00Z", true},
		"a little ahead":          {7, testTime.Add(maxAhead).Format(time.RFC3339Nano), true},
		"far ahead":               {7, testTime.Add(maxAhead + time.Microsecond).Format(time.RFC3339Nano), false},
		"a year out of range":     {7, "9999-12-31T23:59:59Z", false},
		"before 1970":             {7, "1969-12-31T23:59:59Z", false},
		"the zero time":           {7, "0001-01-01T00:00:00Z", false},
		"missing":                 {7, "", false},
		"without a zone":          {7, "2026-08-31T11:59:59", false},
		"no time":                 {7, "yesterday", false},
		"without a number":        {0, "2026-08-31T11:59:59Z", true},
		"a number below all":      {-1, "2026-08-31T11:59:59Z", false},
		"a number as high as any": {1<<63 - 1, "2026-08-31T11:59:59Z", true},
	} {
		ev := jetstream.Event{DID: testDID, Kind: jetstream.KindAccount, Account: &jetstream.Account{Seq: tt.seq, Time: tt.time}}
		res := decoder().Decode(&ev, event.Position{Host: "https://host.example", Seq: 42, Time: testTime})
		require.Equal(t, Kept, res.Drop, name)
		require.NoError(t, res.Event.Validate(), name)
		require.Equal(t, !tt.want, res.TimeRefused, name)
		require.Equal(t, tt.want, res.Event.Upstream != nil, name)
	}
}

func TestResultSharesNoMemoryWithInput(t *testing.T) {
	t.Parallel()
	ev := commit(t, jetstream.OpCreate, post(object{"tags": array{"art"}, "langs": array{"en"}}))
	res := decoder().Decode(ev, at(ev))
	before, err := res.Event.Encode()
	require.NoError(t, err)
	for i := range ev.Commit.RecordCBOR {
		ev.Commit.RecordCBOR[i] = 'Z'
	}
	after, err := res.Event.Encode()
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

func TestPayloadLimitIsExact(t *testing.T) {
	t.Parallel()
	ev := commit(t, jetstream.OpCreate, post(object{"tags": array{"art"}}))
	data, err := decoder().Decode(ev, at(ev)).Event.Encode()
	require.NoError(t, err)
	d := decoder()
	d.MaxPayload = len(data)
	require.Equal(t, Kept, d.Decode(ev, at(ev)).Drop)
	d.MaxPayload--
	require.Equal(t, TooBig, d.Decode(ev, at(ev)).Drop)
}

func BenchmarkDecode(b *testing.B) {
	ev := commit(b, jetstream.OpCreate, post(object{"text": strings.Repeat("x", 200), "facets": array{tagFacet("art"), tagFacet("photo")}, "langs": array{"en"}}))
	d := decoder()
	b.ReportAllocs()
	for b.Loop() {
		if d.Decode(ev, at(ev)).Event == nil {
			b.Fatal("dropped")
		}
	}
}
