package httpapi

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// TestFilters: every filter reaches the index, and the result is what a filter over all posts
// gives. The tests of the store cover the combinations.
func TestFilters(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fill(t, 600, "art", "photo", "a,b", "c++") // enough for every filter to match some
	other := &write.Account{DID: "did:plc:other"}
	require.NoError(t, x.writer.Apply(t.Context(), func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		return cp, tx.Write(t.Context(), write.Changes{Accounts: []*write.Account{other}})
	}))
	for i, p := range slices.Collect(maps.Values(x.posts)) {
		uri, change := x.newPost(fmt.Sprintf("en%d", i), p.Key.SortAt(), p.Tags...)
		change.New.Langs = []string{"en-US", "pt"}[i%2 : i%2+1]
		if i%3 == 0 {
			change.New.Account = other
		}
		change.New.Record = []byte(fmt.Sprintf(`{"embed":{"$type":"app.bsky.embed.%s","media":{"$type":"app.bsky.embed.images"}},"labels":{"values":[%s]}}`,
			[]string{"recordWithMedia", "video", "record"}[i/2%3], []string{`{"val":"nudity"}`, ""}[i/6%2]))
		x.posts[uri] = change.New
		x.write(t, change)
	}
	s := serve(t, x.open(t))
	since, until := t0.Add(100*time.Second), t0.Add(600*time.Second)
	for _, c := range []struct {
		name    string
		tags    []string
		filters []string
		matches func(p *write.Post) bool
	}{
		{"all", []string{"art", "photo"}, []string{"match=all"}, func(p *write.Post) bool { return hasAll(p, "art", "photo") }},
		{"all, as a parameter", nil, []string{"all=photo", "all=art"}, func(p *write.Post) bool { return hasAll(p, "art", "photo") }},
		{"any and all", []string{"art", "photo"}, []string{"all=c++"}, func(p *write.Post) bool { return hasAny(p, "art", "photo") && hasAll(p, "c++") }},
		{"all, in both forms", []string{"art"}, []string{"all=c++", "match=all"}, func(p *write.Post) bool { return hasAll(p, "art", "c++") }},
		{"author", []string{"art"}, []string{"author=did:plc:other"}, func(p *write.Post) bool { return hasAny(p, "art") && p.Account == other }},
		{"two authors", []string{"art"}, []string{"author=did:plc:other", "author=did:plc:nobody"}, func(p *write.Post) bool { return hasAny(p, "art") && p.Account == other }},
		{"notAuthor", []string{"art"}, []string{"notAuthor=did:plc:other"}, func(p *write.Post) bool { return hasAny(p, "art") && p.Account != other }},
		{"maxTags", []string{"art"}, []string{"maxTags=2"}, func(p *write.Post) bool { return hasAny(p, "art") && len(p.Tags) <= 2 }},
		{"image", []string{"art"}, []string{"media=image"}, func(p *write.Post) bool { return hasAny(p, "art") && hasTrait(p, event.HasImage) }},
		{"image or video", []string{"art"}, []string{"media=video", "media=image"}, func(p *write.Post) bool { return hasAny(p, "art") && hasTrait(p, event.HasMedia) }},
		{"any media", []string{"art"}, []string{"media=any"}, func(p *write.Post) bool { return hasAny(p, "art") && hasTrait(p, event.HasMedia) }},
		{"no media", []string{"art"}, []string{"media=none"}, func(p *write.Post) bool { return hasAny(p, "art") && !hasTrait(p, event.HasMedia) }},
		{"no media, or a video", []string{"art"}, []string{"media=none", "media=video"}, func(p *write.Post) bool { return hasAny(p, "art") && !hasTrait(p, event.HasImage) }},
		{"labelled", []string{"art"}, []string{"selfLabels=only"}, func(p *write.Post) bool { return hasAny(p, "art") && hasTrait(p, event.SelfLabelled) }},
		{"not labelled", []string{"art"}, []string{"selfLabels=exclude", "media=any"}, func(p *write.Post) bool {
			return hasAny(p, "art") && !hasTrait(p, event.SelfLabelled) && hasTrait(p, event.HasMedia)
		}},
		{"any, explicitly", []string{"art", "photo"}, []string{"match=any"}, func(p *write.Post) bool { return hasAny(p, "art", "photo") }},
		{"none", []string{"art"}, []string{"none=Photo"}, func(p *write.Post) bool { return hasAny(p, "art") && !hasAny(p, "photo") }},
		{"lang", []string{"art"}, []string{"lang=EN"}, func(p *write.Post) bool { return hasAny(p, "art") && slices.Contains(p.Langs, "en-US") }},
		{"since", []string{"art"}, []string{"since=" + since.Format(time.RFC3339)}, func(p *write.Post) bool {
			return hasAny(p, "art") && !p.Key.SortAt().Before(since)
		}},
		{"until", []string{"art"}, []string{"until=" + until.In(time.FixedZone("", 3600)).Format(time.RFC3339)}, func(p *write.Post) bool {
			return hasAny(p, "art") && p.Key.SortAt().Before(until)
		}},
		{"together", []string{"art", "c++"}, []string{"match=all", "none=photo", "lang=pt", "since=" + since.Format(time.RFC3339), "until=" + until.Format(time.RFC3339)}, func(p *write.Post) bool {
			return hasAll(p, "art", "c++") && !hasAny(p, "photo") && slices.Contains(p.Langs, "pt") && !p.Key.SortAt().Before(since) && p.Key.SortAt().Before(until)
		}},
		{"an empty window", []string{"art"}, []string{"since=" + until.Format(time.RFC3339), "until=" + since.Format(time.RFC3339)}, func(*write.Post) bool { return false }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			want := x.listWhere(c.matches)
			require.Equal(t, c.name == "an empty window", len(want) == 0)
			var got []string
			next := ""
			for {
				params := append(slices.Clone(c.filters), "limit=7")
				if next != "" {
					params = append(params, "after="+next)
				}
				page, _ := s.page(t, c.tags, params...)
				got = append(got, uris(page.Posts)...)
				if !page.Page.HasNext {
					break
				}
				next = page.Page.Next
			}
			require.Equal(t, want, got)
		})
	}
}

// TestTokensOfFilters: every filter makes a different list.
func TestTokensOfFilters(t *testing.T) {
	t.Parallel()
	seen := map[keyset.Fingerprint]string{}
	for _, raw := range []string{
		"tags=a", "tags=a&tags=b", "all=a", "all=a&all=b", "tags=a&all=b", "tags=b&all=a", "tags=a&none=b", "tags=a&lang=b",
		"tags=a&since=2026-11-01T00:00:00Z", "tags=a&until=2026-11-01T00:00:00Z",
		"tags=a&author=did:plc:a", "tags=a&author=did:plc:b", "tags=a&author=did:plc:a&author=did:plc:b", "tags=a&notAuthor=did:plc:a",
		"tags=a&maxTags=1", "tags=a&maxTags=10", "tags=a&media=any", "tags=a&media=image", "tags=a&media=none", "tags=a&media=none&media=image",
		"tags=a&selfLabels=exclude", "tags=a&selfLabels=only",
	} {
		q, err := parseQuery(raw, postsParams)
		require.NoError(t, err)
		list, err := parsePostList(q)
		require.NoError(t, err)
		for _, fingerprint := range []keyset.Fingerprint{list.fingerprint, list.feedFingerprint} {
			require.Empty(t, seen[fingerprint], raw)
			seen[fingerprint] = raw
		}
	}
}

func hasAny(p *write.Post, tags ...string) bool {
	return slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(p.Tags, tag) })
}

func hasTrait(p *write.Post, trait event.Traits) bool { return event.TraitsOf(p.Record)&trait != 0 }

func hasAll(p *write.Post, tags ...string) bool {
	return !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(p.Tags, tag) })
}
