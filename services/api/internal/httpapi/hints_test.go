package httpapi

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestHints: an empty first page names likely mistakes in the query, and no other page does.
func TestHints(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.add(t, "one", t0, "art")
	x.add(t, "two", t0, "art", "a,b")
	s := serve(t, x.open(t))
	const (
		window  = "Give a since that is before until: no time is at or after 2026-11-02T00:00:00Z and before 2026-11-01T00:00:00Z."
		both    = `Name "art" in tags or in none, not in both: posts that have it are left out.`
		several = "Repeat the parameter for several tags, as in tags=art&tags=photo: no post has the tag "
		comma   = several + `"art,photo", but some have "art".`
	)
	later := url.Values{"since": {"2026-11-02T00:00:00Z"}, "until": {"2026-11-01T00:00:00Z"}}.Encode()
	for _, c := range []struct {
		name, query string
		want        []string
	}{
		{"comma", "tags=art,photo", []string{comma}},
		{"comma, written as people do", "tags=Art,%20%23Photo", []string{several + `"art, #photo", but some have "art".`}},
		{"semicolon, a later part known", "tags=photo%3Bart", []string{several + `"photo;art", but some have "art".`}},
		{"space", "tags=art+photo", []string{several + `"art photo", but some have "art".`}},
		{"one of two", "tags=photo&tags=art,photo", []string{comma}},
		{"a comma in a tag that is used", "tags=a,b&none=a,b", []string{`Name "a,b" in tags or in none, not in both: posts that have it are left out.`}},
		{"no part known", "tags=photo,ink", nil},
		{"unknown", "tags=photo", nil},
		{"since after until", "tags=art&" + later, []string{window}},
		{"no time between", "tags=art&since=2026-11-02T00:00:00Z&until=2026-11-02T00:00:00Z", []string{
			"Give a since that is before until: no time is at or after 2026-11-02T00:00:00Z and before 2026-11-02T00:00:00Z."}},
		{"until before all", "tags=art&until=1999-01-01T00:00:00Z", nil},
		{"in both", "tags=art&none=ART", []string{both}},
		{"in both, among others", "tags=art&tags=photo&none=art", []string{both}},
		{"all at once", "tags=art&tags=art,photo&none=art&" + later, []string{window, both, comma}},
		{"required and left out", "all=art&all=ink&none=art", []string{`Name "art" in all or in none, not in both: posts that have it are left out.`}},
		{"with match=all", "tags=art&tags=ink&none=art&match=all", []string{both}},
		{"an author in both", "tags=art&author=did:plc:a&notAuthor=did:plc:a", []string{`Name "did:plc:a" in author or in notAuthor, not in both: the account's posts are left out.`}},
		{"more required than allowed", "all=art&all=ink&all=sky&maxTags=2", []string{"Give maxTags as 3 or more: posts with all of these tags have at least that many."}},
		{"comma in all", "all=art,photo", []string{comma}},
		{"the oldest page", "tags=art,photo&last=5", []string{comma}},
		{"not empty", "tags=art&tags=art,photo", nil},
		{"not empty, in both", "tags=art&tags=a,b&none=a,b", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := s.get(t, "/v1/posts?"+c.query)
			require.Equal(t, http.StatusOK, a.status, "%s", a.body)
			var p postsJSON
			a.json(t, &p)
			require.Equal(t, c.want, p.Hints)
			if len(p.Posts) == 0 {
				again := s.get(t, "/v1/posts?"+strings.TrimSuffix(c.query, "&last=5")+"&after="+p.Page.Next)
				require.NotContains(t, string(again.body), "hints", "not the first page")
			}
		})
	}
	var r recentJSON
	s.get(t, "/v1/getRecentRootPostsWithTags?tags=art,photo").json(t, &r)
	require.Equal(t, []string{comma}, r.Hints)
	require.NotContains(t, string(s.get(t, "/v1/getRecentRootPostsWithTags?tags=art").body), "hints")

	// Browsers send it like this. Go's query parsers, and so that of the spec, refuse it.
	res, err := http.Get(s.url + "/v1/posts?tags=art;photo")
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), `no post has the tag \"art;photo\", but some have \"art\".`)
}

// TestEmptyTokens: an empty token means none.
func TestEmptyTokens(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	x.fill(t, 20, "art", "photo")
	s := serve(t, x.open(t))
	first := s.get(t, "/v1/posts?tags=art&limit=3")
	var p postsJSON
	first.json(t, &p)
	for _, same := range []string{"after=", "before=", "after=&before="} {
		a := s.get(t, "/v1/posts?tags=art&limit=3&"+same)
		require.Equal(t, string(first.body), string(a.body), same)
		require.Equal(t, first.header.Get("Link"), a.header.Get("Link"), same)
	}
	next := s.get(t, "/v1/posts?tags=art&limit=3&after="+p.Page.Next)
	require.Equal(t, string(next.body), string(s.get(t, "/v1/posts?tags=art&limit=3&before=&after="+p.Page.Next).body))
	require.Equal(t, string(s.get(t, "/v1/posts?tags=art&last=3").body), string(s.get(t, "/v1/posts?tags=art&last=3&after=").body))
	require.Equal(t, string(first.body), string(s.get(t, "/v1/posts?tags=art&first=3&before=").body))
	require.Equal(t, string(s.get(t, "/v1/tags?limit=1").body), string(s.get(t, "/v1/tags?limit=1&after=").body))
	require.Equal(t, string(s.get(t, "/v1/tags?prefix=a").body), string(s.get(t, "/v1/tags?prefix=a&before=").body))
}
