package model

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHashIsSHA256Prefix(t *testing.T) {
	t.Parallel()
	// printf %s at://did:plc:a/app.bsky.feed.post/1 | sha256sum
	require.Equal(t, "b8979afb5d3b1d8a", fmt.Sprintf("%016x", hashOf(uriOf("did:plc:a", "1"))))
}

func TestNormalTagsKeepsFirstHundred(t *testing.T) {
	t.Parallel()
	var raw []string
	for i := range 120 {
		raw = append(raw, fmt.Sprintf("T%d", i), fmt.Sprintf("#t%d", i), "")
	}
	tags := normalTags(raw)
	require.Len(t, tags, 100)
	require.Equal(t, "t0", tags[0])
	require.Equal(t, "t99", tags[99])
}

func TestQualification(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, record string
		want         []string // nil if the post does not belong in the index
	}{
		{"tags field", `{"tags":["Art","#photo","art"]}`, []string{"art", "photo"}},
		{"facet", `{"facets":[{"index":{},"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"Art"}]}]}`, []string{"art"}},
		{"facets before the field", `{"tags":["a","b"],"facets":[{"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"c"},{"$type":"app.bsky.richtext.facet#tag","tag":"b"}]}]}`, []string{"c", "b", "a"}},
		{"another feature", `{"facets":[{"features":[{"$type":"app.bsky.richtext.facet#link","tag":"art"}]}]}`, nil},
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
			require.Equal(t, c.want, recordTags(record))
		})
	}
}

func keys(posts []Post) string {
	var rkeys []string
	for _, p := range posts {
		rkeys = append(rkeys, p.Rkey)
	}
	return strings.Join(rkeys, " ")
}

func TestQueryMatches(t *testing.T) {
	t.Parallel()
	x := fold(parseHistory(t, "create a/1 @1 #art #cats; create a/2 @1 #art; create a/3 @1 #cats; create a/4 @1 #a,b; create b/5 @1 #art; account b suspended"))
	x.posts[uriOf("did:plc:a", "1")].Langs = []string{"pt-BR"}
	x.posts[uriOf("did:plc:a", "2")].Langs = []string{"x", "EN"}
	x.posts[uriOf("did:plc:a", "3")].Langs = []string{"eng", "en_US", "\u212ao"}
	second := func(n int) time.Time { return base.Add(time.Duration(n) * time.Second) }
	for _, c := range []struct {
		name  string
		query Query
		want  string
	}{
		{"one tag", Query{Tags: []string{"art"}}, "2 1"},
		{"normalized", Query{Tags: []string{"#ART"}}, "2 1"},
		{"any", Query{Tags: []string{"art", "cats"}}, "3 2 1"},
		{"all", Query{All: []string{"art", "cats"}}, "1"},
		{"any and all", Query{Tags: []string{"art", "dogs"}, All: []string{"#Cats"}}, "1"},
		{"author", Query{All: []string{"art"}, By: []string{"did:plc:b", "did:plc:a"}}, "2 1"},
		{"another author", Query{Tags: []string{"art"}, By: []string{"did:plc:c"}}, ""},
		{"not the author", Query{Tags: []string{"art"}, NotBy: []string{"did:plc:a"}}, ""},
		{"few tags", Query{Tags: []string{"art"}, MaxTags: 1}, "2"},
		{"no media", Query{Tags: []string{"art"}, Media: []string{"image", "none"}}, "2 1"},
		{"any media", Query{Tags: []string{"art"}, Media: []string{"any"}}, ""},
		{"no label", Query{Tags: []string{"art"}, SelfLabels: "only"}, ""},
		{"none of", Query{Tags: []string{"art"}, None: []string{"cats"}}, "2"},
		{"none of its own", Query{Tags: []string{"art"}, None: []string{"art"}}, ""},
		{"comma", Query{Tags: []string{"a,b"}}, "4"},
		{"no tag", Query{}, ""},
		{"unknown tag", Query{Tags: []string{"dogs"}}, ""},
		{"no possible tag", Query{Tags: []string{"###"}}, ""},
		{"language range", Query{Tags: []string{"art"}, Langs: []string{"pt"}}, "1"},
		{"no prefix of a subtag", Query{Tags: []string{"art"}, Langs: []string{"pt-B"}}, ""},
		{"language in any case", Query{Tags: []string{"art"}, Langs: []string{"de", "en"}}, "2"},
		{"more special range", Query{Tags: []string{"art"}, Langs: []string{"en-US"}}, ""},
		{"no prefix of a language", Query{Tags: []string{"cats"}, Langs: []string{"en"}}, ""},
		{"ASCII case alone", Query{Tags: []string{"cats"}, Langs: []string{"ko"}}, ""},
		{"any of the languages", Query{Tags: []string{"art", "cats"}, Langs: []string{"PT", "eng"}}, "3 1"},
		{"any, none and a language", Query{Tags: []string{"art", "cats"}, None: []string{"#Cats"}, Langs: []string{"en"}}, "2"},
		{"since is inclusive", Query{Tags: []string{"art"}, Since: second(2)}, "2"},
		{"until is exclusive", Query{Tags: []string{"art"}, Until: second(2)}, "1"},
		{"since within a microsecond", Query{Tags: []string{"art"}, Since: second(1).Add(1)}, "2"},
		{"until within a microsecond", Query{Tags: []string{"art"}, Until: second(2).Add(1)}, "2 1"},
		{"empty window", Query{Tags: []string{"art"}, Since: second(2), Until: second(2)}, ""},
		{"window upside down", Query{Tags: []string{"art"}, Since: second(2), Until: second(1)}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, keys(c.query.list(x.Posts())))
		})
	}
}

func TestTagCountsCountVisiblePosts(t *testing.T) {
	t.Parallel()
	x := fold(parseHistory(t, "create a/1 @1 #b #a; create a/2 @1 #b #c; create b/3 @1 #b #d; account b suspended; create a/4 @1 #e; delete a/4 @2"))
	require.Equal(t, []TagCount{{"b", 2}, {"a", 1}, {"c", 1}}, x.TagCounts())
	require.Equal(t, []TagCount{{"a", 1}}, complete(x.TagCounts(), "a"))
	require.Len(t, complete(x.TagCounts(), ""), 3)
	require.Equal(t, "3", keys(x.Hidden()))
	require.Equal(t, []string{uriOf("did:plc:a", "4")}, x.Absent())
}

func TestDenied(t *testing.T) {
	t.Parallel()
	x := fold(parseHistory(t, "create a/1 @1 #art #bad; create a/2 @1 #bad; create b/3 @1 #art; create c/4 @1 #cats"))
	x.Deny([]string{"did:plc:b", "did:plc:nobody"}, []string{"#Bad"})
	for _, c := range []struct {
		query Query
		want  string
	}{
		{Query{Tags: []string{"art"}}, "1"},
		{Query{Tags: []string{"bad"}}, ""},
		{Query{Tags: []string{"bad", "art"}}, "1"},
		{Query{All: []string{"bad", "art"}}, ""},
		{Query{Tags: []string{"art"}, None: []string{"bad"}}, ""},
		{Query{Tags: []string{"art"}, MaxTags: 1}, ""},
	} {
		require.Equal(t, c.want, keys(c.query.list(x.Posts())), c.query)
	}
	require.Equal(t, []TagCount{{"art", 1}, {"cats", 1}}, x.TagCounts())
	require.Equal(t, "3", keys(x.Hidden()))
	require.Equal(t, "4 2 1", keys(x.Posts()))
	require.Equal(t, []string{"art"}, x.Posts()[2].Shown)
	x.Deny(nil, nil)
	require.Equal(t, "3 1", keys(Query{Tags: []string{"art"}}.list(x.Posts())))
	require.Equal(t, "2 1", keys(Query{Tags: []string{"bad"}}.list(x.Posts())))
}

func TestTagInfo(t *testing.T) {
	t.Parallel()
	x := fold(parseHistory(t, "create a/1 @1; create a/2 @1 created=-1; create a/3 @1 created=-3600; create a/4 @1 created=-999999; create b/5 @1; account b suspended"))
	info := tagInfo("art", x.Posts(), base.Add(90*time.Minute))
	require.Equal(t, 4, info.Posts)
	require.Equal(t, base.Add(-999999*time.Second).Format(timeFormat), info.FirstSeen)
	require.Equal(t, base.Add(time.Second).Format(timeFormat), info.LastSeen)
	require.Len(t, info.History, 168)
	hour := func(n int) string { return base.Add(time.Duration(n) * time.Hour).Format(timeFormat) }
	require.Equal(t, hourAnswer{hour(-166), 0}, info.History[0])
	require.Equal(t, []hourAnswer{{hour(-1), 2}, {hour(0), 1}, {hour(1), 0}}, info.History[165:])
}
