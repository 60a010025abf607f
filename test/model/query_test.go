package model

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

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
		{"all", Query{Tags: []string{"art", "cats"}, All: true}, "1"},
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
			require.Equal(t, c.want, keys(x.List(c.query)))
		})
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	list := fold(parseHistory(t, "create a/1 @1; create a/2 @1; create a/3 @1; create a/4 @1; create a/5 @1")).List(Query{Tags: []string{"art"}})
	pos := func(rkey string, side int) *Position {
		i := slices.IndexFunc(list, func(p Post) bool { return p.Rkey == rkey })
		return &Position{list[i].Place, side}
	}
	for _, c := range []struct {
		name          string
		after, before *Position
		limit         int
		want          string // rows, with < where newer ones precede and > where older ones follow
	}{
		{"first", nil, nil, 2, "5 4 >"},
		{"whole", nil, nil, 5, "5 4 3 2 1"},
		{"after a row", pos("4", 0), nil, 2, "< 3 2 >"},
		{"after above a row", pos("4", +1), nil, 2, "< 4 3 >"},
		{"after below a row", pos("4", -1), nil, 3, "< 3 2 1"},
		{"after above the first", pos("5", +1), nil, 2, "5 4 >"},
		{"after the last", pos("1", -1), nil, 2, "<"},
		{"before a row", nil, pos("3", 0), 1, "< 4 >"},
		{"before below a row", nil, pos("3", -1), 2, "< 4 3 >"},
		{"before above a row", nil, pos("3", +1), 2, "5 4 >"},
		{"back from the end", nil, pos("1", -1), 2, "< 2 1"},
		{"before the first", nil, pos("5", +1), 2, ">"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			page := list.Page(c.after, c.before, c.limit)
			got := keys(page.Posts)
			if page.HasPrevious {
				got = strings.TrimSpace("< " + got)
			}
			if page.HasNext {
				got = strings.TrimSpace(got + " >")
			}
			require.Equal(t, c.want, got)
		})
	}
	empty := List{}.Page(pos("3", 0), nil, 2)
	require.Equal(t, *pos("3", -1), empty.Next, "an empty page stays where it was asked for")
	require.Equal(t, *pos("3", -1), empty.Previous, "beyond the row")
	empty = List{}.Page(nil, pos("3", 0), 2)
	require.Equal(t, *pos("3", +1), empty.Next)
	end := list.Page(pos("1", 0), nil, 2)
	require.Empty(t, end.Posts)
	require.Equal(t, "1", keys(list.Page(nil, &end.Previous, 1).Posts), "turning back at the end gives the last row")
}

func TestTagCountsAreOfVisiblePosts(t *testing.T) {
	t.Parallel()
	x := fold(parseHistory(t, "create a/1 @1 #b #a; create a/2 @1 #b #c; create b/3 @1 #b #d; account b suspended; create a/4 @1 #e; delete a/4 @2"))
	require.Equal(t, []TagCount{{"b", 2}, {"a", 1}, {"c", 1}}, x.TagCounts())
	require.Equal(t, []TagCount{{"a", 1}}, complete(x.TagCounts(), "a"))
	require.Len(t, complete(x.TagCounts(), ""), 3)
	require.Equal(t, "3", keys(x.Hidden()))
	require.Equal(t, []string{uriOf("did:plc:a", "4")}, x.Absent())
}

func TestTagInfo(t *testing.T) {
	t.Parallel()
	x := fold(parseHistory(t, "create a/1 @1; create a/2 @1 created=-1; create a/3 @1 created=-3600; create a/4 @1 created=-999999; create b/5 @1; account b suspended"))
	list := x.List(Query{Tags: []string{"art"}})
	info := list.tagInfo(base.Add(90 * time.Minute))
	require.Equal(t, 4, info.Posts)
	require.Equal(t, base.Add(-999999*time.Second), info.FirstSeen)
	require.Equal(t, base.Add(time.Second), info.LastSeen)
	require.Len(t, info.History, 168)
	require.Equal(t, HourCount{base.Add(-166 * time.Hour), 0}, info.History[0])
	require.Equal(t, []HourCount{{base.Add(-time.Hour), 2}, {base, 1}, {base.Add(time.Hour), 0}}, info.History[165:])
}

func TestPagesConcatenateToTheList(t *testing.T) {
	t.Parallel()
	for seed := range uint64(15) {
		x := fold(Generate(seed, 300))
		for _, q := range []Query{{Tags: []string{"art"}}, {Tags: []string{"photo", "cats", "art"}}, {Tags: []string{"art", "photo"}, All: true}} {
			list := x.List(q)
			for limit := 1; limit < 8; limit++ {
				var forward, backward []Post
				page := list.Page(nil, nil, limit)
				forward = append(forward, page.Posts...)
				for page.HasNext {
					page = list.Page(&page.Next, nil, limit)
					require.NotEmpty(t, page.Posts, "seed %d", seed)
					forward = append(forward, page.Posts...)
				}
				require.Equal(t, keys(list), keys(forward), "seed %d, limit %d", seed, limit)
				page = Page{Previous: page.Next, HasPrevious: len(list) > 0}
				for page.HasPrevious {
					page = list.Page(nil, &page.Previous, limit)
					require.NotEmpty(t, page.Posts, "seed %d", seed)
					backward = append(slices.Clone(page.Posts), backward...)
				}
				require.Equal(t, keys(list), keys(backward), "seed %d, limit %d", seed, limit)
			}
		}
	}
}

func TestApplyCountsDeadLetters(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		messages, clean := New(), New()
		for i, data := range GenerateMessages(seed, 300) {
			messages.Apply(uint64(i+1), data)
		}
		for i, e := range Generate(seed, 300) {
			clean.Apply(uint64(i+1), mustEncode(e))
		}
		require.NotZero(t, messages.DeadLetters(), "seed %d", seed)
		require.Zero(t, clean.DeadLetters(), "seed %d", seed)
		require.Empty(t, clean.Complaints(), "seed %d", seed)
	}
}

func TestDeadLetterDoesNotEndASync(t *testing.T) {
	t.Parallel()
	x := fold(parseHistory(t, "create a/1 @1; sync a @5"))
	x.Apply(3, []byte("not an event"))
	require.Equal(t, "a/1@1~1", state(x))
	require.Equal(t, 1, x.DeadLetters())
}

func TestUnnormalizedTagsAreAComplaint(t *testing.T) {
	t.Parallel()
	e := parseHistory(t, "create a/1 @1")[0]
	e.Tags = []string{"Art"}
	x := New()
	x.ApplyEvent(1, e)
	require.Len(t, x.Complaints(), 1)
}

func ExampleIndex() {
	x := New()
	x.Apply(1, []byte(`{"v":1,"kind":"create","source":{"host":"https://jetstream.example","seq":7,"time":"2026-08-20T12:00:00Z"},
		"did":"did:plc:a","rkey":"1","rev":"3mabcdefghij2","cid":"c","tags":["art"],"createdAt":"2026-08-20T11:59:58Z","record":{}}`))
	for _, p := range x.List(Query{Tags: []string{"#Art"}}) {
		fmt.Println(p.URI, p.SortAt().Format(time.TimeOnly))
	}
	// Output: at://did:plc:a/app.bsky.feed.post/1 11:59:58
}
