package model

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/test/simnet"
)

func TestQualification(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, record string
		want         []string // nil where the post does not belong in the index
	}{
		{"tags field", `{"tags":["Art","#photo","art"]}`, []string{"art", "photo"}},
		{"facet", `{"facets":[{"index":{},"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"Art"}]}]}`, []string{"art"}},
		{"facets before the field", `{"tags":["a","b"],"facets":[{"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"c"},{"$type":"app.bsky.richtext.facet#tag","tag":"b"}]}]}`, []string{"c", "b", "a"}},
		{"another feature", `{"facets":[{"features":[{"$type":"app.bsky.richtext.facet#link","tag":"art"}]}]}`, nil},
		{"reply", `{"tags":["art"],"reply":{"root":{},"parent":{}}}`, nil},
		{"malformed reply", `{"tags":["art"],"reply":"x"}`, nil},
		{"null reply", `{"tags":["art"],"reply":null}`, []string{"art"}},
		{"quote", `{"tags":["art"],"embed":{"$type":"app.bsky.embed.record"}}`, []string{"art"}},
		{"no tags", `{"text":"#art only in the text"}`, nil},
		{"only tags that are not kept", `{"tags":["","#","a\u0000b"]}`, nil},
		{"malformed tags cost themselves", `{"tags":[1,null,{"tag":"x"},["y"],"art"]}`, []string{"art"}},
		{"a tags field that is no list costs itself", `{"tags":"photo","facets":[{"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"art"}]}]}`, []string{"art"}},
		{"malformed facets cost themselves", `{"tags":["art"],"facets":{"features":[]}}`, []string{"art"}},
		{"malformed facet", `{"facets":["x",{"features":"y"},{"features":["z",{"$type":"app.bsky.richtext.facet#tag","tag":7},{"$type":"app.bsky.richtext.facet#tag","tag":"art"}]}]}`, []string{"art"}},
		{"malformed text", `{"tags":["art"],"text":5,"createdAt":{}}`, []string{"art"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var record map[string]any
			require.NoError(t, json.Unmarshal([]byte(c.record), &record))
			posts := FromUpstream([]Change{{Kind: ChangeCreate, DID: "did:plc:a", Rkey: "1", Rev: tid(1), Record: record, Time: base}}).Posts()
			if c.want == nil {
				require.Empty(t, posts)
				return
			}
			require.Len(t, posts, 1)
			require.Equal(t, c.want, posts[0].Tags)
		})
	}
}

func TestRecordFields(t *testing.T) {
	t.Parallel()
	one := func(record map[string]any) Post {
		record["tags"] = []string{"art"}
		return FromUpstream([]Change{{Kind: ChangeCreate, DID: "did:plc:a", Rkey: "1", Rev: tid(1), Record: record, Time: base}}).Posts()[0]
	}
	p := one(map[string]any{"createdAt": "2026-08-20T11:00:00Z", "langs": []any{"en", 5, "", "a\x00", "pt-BR"}})
	require.Equal(t, []string{"en", "pt-BR"}, p.Langs)
	require.Equal(t, "2026-08-20T11:00:00Z", p.CreatedAt)
	require.Equal(t, base.Add(-time.Hour), p.SortAt())
	p = one(map[string]any{"createdAt": 5, "langs": "en"})
	require.Empty(t, p.Langs)
	require.Empty(t, p.CreatedAt)
	require.Equal(t, base, p.SortAt())
}

// upstream makes a network's history and what ingest must publish of it.
type upstream struct {
	rng     *rand.Rand
	now     time.Time
	rev     uint64
	repos   map[string]map[string]Change // what each repository holds
	changes []Change
	events  []*event.Event
}

func (u *upstream) publish(e event.Event, c Change) {
	e.DID, e.Rkey, e.Rev, e.CID = c.DID, c.Rkey, c.Rev, c.CID
	e.Source = event.Position{Host: "h", Seq: uint64(len(u.events) + 1), Time: c.Time}
	u.events = append(u.events, &e)
}

// post publishes a created or updated record.
func (u *upstream) post(kind event.Kind, c Change) {
	tags := recordTags(c.Record)
	if _, reply := c.Record["reply"]; reply || len(tags) == 0 {
		if kind == event.KindUpdate {
			c.CID = ""
			u.publish(event.Event{Kind: event.KindRemove}, c)
		}
		return
	}
	record, _ := json.Marshal(c.Record)
	created, _ := c.Record["createdAt"].(string)
	u.publish(event.Event{Kind: kind, Tags: tags, Langs: recordLangs(c.Record), CreatedAt: created, Record: record}, c)
}

func (u *upstream) step() {
	u.now = u.now.Add(time.Duration(1+u.rng.IntN(2000)) * time.Millisecond)
	u.rev++
	did := fmt.Sprintf("did:plc:%d", u.rng.IntN(3))
	if u.repos[did] == nil {
		u.repos[did] = map[string]Change{}
	}
	repo := u.repos[did]
	c := Change{DID: did, Rev: tid(u.rev), Time: u.now}
	p := u.rng.IntN(100)
	if p >= 80 && p < 88 {
		c.Kind, c.Status = ChangeAccount, pick(u.rng, "deleted", "suspended", "throttled", "gone", "", "", "")
		c.Active = c.Status == ""
		if c.Status == "deleted" {
			clear(repo)
		}
		u.changes = append(u.changes, c)
		u.publish(event.Event{Kind: event.KindAccount, Active: c.Active, Status: c.Status}, Change{DID: did, Time: u.now})
		return
	}
	if p >= 88 && p < 94 {
		u.sync(c, repo)
		return
	}
	c.Rkey = fmt.Sprint(u.rng.IntN(6))
	old, there := repo[c.Rkey]
	if there && u.rng.IntN(3) == 0 {
		c.Kind = ChangeDelete
		delete(repo, c.Rkey)
		u.changes = append(u.changes, c)
		u.publish(event.Event{Kind: event.KindDelete}, c)
		return
	}
	c.CID, c.Record = "cid"+c.Rev, u.record()
	kind := event.KindCreate
	c.Kind = ChangeCreate
	if there {
		kind, c.Kind = event.KindUpdate, ChangeUpdate
		c.Record["createdAt"] = old.Record["createdAt"]
	}
	repo[c.Rkey] = c
	u.changes = append(u.changes, c)
	u.post(kind, c)
}

// sync drops some records and adds some, and announces only the result.
func (u *upstream) sync(c Change, repo map[string]Change) {
	c.Kind, c.Repo = ChangeSync, []Change{}
	u.publish(event.Event{Kind: event.KindSync}, c)
	for i := range 6 {
		key := fmt.Sprint(i)
		old, there := repo[key]
		switch {
		case there && u.rng.IntN(4) == 0:
			delete(repo, key)
			continue
		case !there && u.rng.IntN(4) == 0:
			old = Change{DID: c.DID, Rkey: key, CID: "cid" + c.Rev, Record: u.record()}
		case !there:
			continue
		}
		old.Kind, old.Rev, old.Time = ChangeCreate, c.Rev, c.Time
		repo[key] = old
		c.Repo = append(c.Repo, old)
		u.post(event.KindCreate, old)
	}
	u.changes = append(u.changes, c)
}

func (u *upstream) record() map[string]any {
	record := map[string]any{"text": fmt.Sprint(u.rng.IntN(1000))}
	record["tags"] = pick(u.rng, []any{"art"}, []any{"Art", "cats"}, []any{"photo", 7}, []any{}, []any{"#"})
	switch u.rng.IntN(5) {
	case 0:
		record["reply"] = map[string]any{}
	case 1:
		record["createdAt"] = u.now.Add(-time.Minute).Format(time.RFC3339)
	case 2:
		record["createdAt"] = u.now.Add(time.Minute).Format(time.RFC3339)
	case 3:
		record["createdAt"] = "no time"
	}
	return record
}

func makeUpstream(seed uint64, n int) *upstream {
	u := &upstream{rng: rand.New(rand.NewPCG(seed, 3)), now: base, rev: 1, repos: map[string]map[string]Change{}}
	for range n {
		u.step()
	}
	// Later than the last step: a position within a sync does not end it.
	u.now = u.now.Add(time.Second)
	u.publish(event.Event{Kind: event.KindPosition}, Change{Time: u.now})
	return u
}

// TestFoldAgreesWithUpstream: the fold of events, with its revs and markers,
// comes to what was done on the network, where the last change is the truth.
func TestFoldAgreesWithUpstream(t *testing.T) {
	t.Parallel()
	visible := 0
	for seed := range uint64(propertySeeds) {
		u := makeUpstream(seed, 200)
		x, y := fold(u.events), FromUpstream(u.changes)
		require.Equal(t, answers(y), answers(x), "seed %d", seed)
		require.Equal(t, keys(y.Hidden()), keys(x.Hidden()), "seed %d", seed)
		visible += len(x.Posts())
	}
	require.Greater(t, visible, propertySeeds)
}

// TestUnknownTimesComeFromTheAPI: what is known of them is checked.
func TestUnknownTimesComeFromTheAPI(t *testing.T) {
	t.Parallel()
	unknown := func(changes []Change) []Change {
		var loose []Change
		for _, c := range changes {
			c.NotBefore, c.Time = c.Time.Add(-3*time.Millisecond), time.Time{}
			for i := range c.Repo {
				c.Repo[i].NotBefore, c.Repo[i].Time = c.Repo[i].Time, time.Time{}
			}
			loose = append(loose, c)
		}
		return loose
	}
	for seed := range uint64(6) {
		u := makeUpstream(seed, 120)
		got := fold(u.events)
		require.NoError(t, checkFake(t, FromUpstream(unknown(u.changes)), &fakeAPI{index: got}), "seed %d", seed)
	}
	record := map[string]any{"tags": []any{"art"}, "createdAt": base.Add(-time.Minute).Format(time.RFC3339)}
	c := Change{Kind: ChangeCreate, DID: "did:plc:a", Rkey: "1", Rev: tid(1), Record: record, NotBefore: base}
	uri := uriOf("did:plc:a", "1")
	require.ErrorContains(t, FromUpstream([]Change{c}).adopt(uri, base.Add(-time.Second), base.Add(-time.Minute)), "before the change")
	require.ErrorContains(t, FromUpstream([]Change{c}).adopt(uri, base.Add(time.Second), base), "not between")
	require.NoError(t, FromUpstream([]Change{c}).adopt(uri, base.Add(time.Second), base.Add(-time.Minute)))
}

func TestFromNetwork(t *testing.T) {
	t.Parallel()
	n, err := simnet.New(simnet.Config{Seed: 1, Accounts: 2, Clock: simnet.StepClock(base, time.Second)})
	require.NoError(t, err)
	record := func(text string, tags ...any) map[string]any {
		return map[string]any{"$type": simnet.PostCollection, "text": text, "tags": tags, "createdAt": base.Format(time.RFC3339)}
	}
	a, b := n.DIDs()[0], n.DIDs()[1]
	for _, key := range []string{"one", "two", "three", "four"} {
		_, err = n.CreatePost(a, key, record(key, "art"))
		require.NoError(t, err)
	}
	_, err = n.UpdatePost(a, "two", record("2", "Photo", "cats"))
	require.NoError(t, err)
	_, err = n.UpdatePost(a, "three", record("3"))
	require.NoError(t, err)
	_, err = n.DeletePost(a, "four")
	require.NoError(t, err)
	_, err = n.CreatePost(b, "five", record("five", "art"))
	require.NoError(t, err)
	_, err = n.SetAccountStatus(b, false, "suspended")
	require.NoError(t, err)
	x, err := FromNetwork(n.Log())
	require.NoError(t, err)
	require.Equal(t, []TagCount{{"art", 1}, {"cats", 1}, {"photo", 1}}, x.TagCounts())
	require.Equal(t, "five", keys(x.Hidden()))
	require.Equal(t, []string{uriOf(a, "four"), uriOf(a, "three")}, x.Absent())

	_, err = n.Sync(a, simnet.Op{Action: simnet.Delete, Rkey: "one"}, simnet.Op{Action: simnet.Create, Rkey: "six", Record: record("six", "art")})
	require.NoError(t, err)
	_, err = n.Sync(a) // of the same state
	require.NoError(t, err)
	x, err = FromNetwork(n.Log())
	require.NoError(t, err)
	require.Equal(t, []TagCount{{"art", 1}, {"cats", 1}, {"photo", 1}}, x.TagCounts())
	require.Contains(t, x.Absent(), uriOf(a, "one"))
}
