package httpapi

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

// changes requests a page of /v1/changes.
func (s *served) changes(t testing.TB, query string, more ...string) changesJSON {
	t.Helper()
	a := s.get(t, "/v1/changes?"+query+strings.Join(more, ""))
	require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	var out changesJSON
	a.json(t, &out)
	return out
}

// ops returns the changes in short: "+" or "-" for an upsert or removal, and the record key.
func (c changesJSON) ops() (out []string) {
	for _, change := range c.Changes {
		switch {
		case change.Op == opUpsert && change.URI == "":
			out = append(out, "+"+change.Post.Rkey)
		case change.Op == opRemove && change.Post == nil:
			_, rkey, _ := strings.Cut(change.URI, event.Collection+"/")
			out = append(out, "-"+rkey)
		default:
			out = append(out, "invalid")
		}
	}
	return out
}

func TestChanges(t *testing.T) {
	t.Parallel()
	x := newIndex(t)
	old := x.add(t, "old", t0, "art")
	s := serve(t, x.open(t))
	art := s.changes(t, "tags=art")
	require.Empty(t, art.Changes)
	require.False(t, art.Page.HasNext)
	photo := s.changes(t, "tags=photo&after=") // an empty token means none
	after := "&after=" + art.Page.Next
	require.Equal(t, art.Page, s.changes(t, "tags=art", after).Page, "nothing happened")

	late := x.add(t, "late", t0.Add(-24*time.Hour), "art")
	x.add(t, "other", t0, "photo")
	x.remove(t, old)
	page := s.changes(t, "tags=art", after)
	require.Equal(t, []string{"+late", "-old"}, page.ops())
	require.False(t, page.Page.HasNext)
	require.Equal(t, late, page.Changes[0].Post.URI)
	listed, _ := s.page(t, []string{"art"})
	require.Equal(t, listed.Posts, []postJSON{*page.Changes[0].Post}, "equal to the listed post")
	require.Equal(t, []string{"-old"}, s.changes(t, "tags=art&after="+page.Changes[0].Cursor).ops(), "after the first")
	require.Empty(t, s.changes(t, "tags=art&after="+page.Page.Next).Changes)
	require.Equal(t, []string{"+other"}, s.changes(t, "tags=photo&after="+photo.Page.Next).ops())

	// One change per page.
	var all []string
	for more, token := true, art.Page.Next; more; {
		a := s.get(t, "/v1/changes?tags=art&limit=1&after="+token)
		var one changesJSON
		a.json(t, &one)
		require.LessOrEqual(t, len(one.Changes), 1)
		all = append(all, one.ops()...)
		more, token = one.Page.HasNext, one.Page.Next
		require.Equal(t, more, a.header.Get("Link") != "")
	}
	require.Equal(t, []string{"+late", "-old"}, all)

	// Edits move a post in and out of a query. Other spellings of the query share its tokens.
	edit := func(tags ...string) {
		before := x.posts[late]
		edited := *before
		edited.Tags, edited.Rev = tags, before.Rev+"a"
		x.write(t, write.PostChange{Old: before, New: &edited, OldVisible: true, NewVisible: true})
		x.posts[late] = &edited
	}
	token := s.changes(t, "tags=art&tags=photo&none=ink").Page.Next
	edit("art", "ink")
	require.Equal(t, []string{"-late"}, s.changes(t, "tags=photo&none=ink&tags=art&after="+token).ops())
	edit("art")
	require.Equal(t, []string{"+late"}, s.changes(t, "tags=%23Art&tags=photo&none=ink&after="+token).ops(), "the current state")
	edit("ink")
	require.Equal(t, []string{"-late"}, s.changes(t, "tags=art&tags=photo&none=ink&after="+token).ops())

	// A follower is not sent removals of posts that never matched.
	x.remove(t, x.add(t, "brief", t0, "art"))
	x.add(t, "inked", t0, "art", "ink")
	require.Equal(t, []string{"-late", "-brief"}, s.changes(t, "tags=art&tags=photo&none=ink&after="+token).ops(), "a follower may have the first one; the inked one never matched")

	list, _ := s.page(t, []string{"art"})
	for _, c := range []struct {
		query string
		want  code
	}{
		{"after=" + token, codeMissingTags},
		{"tags=art&before=" + token, codeUnknownParameter},
		{"tags=art&limit=101", codeInvalidLimit},
		{"tags=art&after=" + photo.Page.Next, codeCursorMismatch},
		{"tags=art&match=all&after=" + art.Page.Next, codeCursorMismatch},
		{"tags=art&lang=en&after=" + art.Page.Next, codeCursorMismatch},
		{"tags=art&after=" + list.Page.Next, codeCursorMismatch},
		{"tags=art&after=x" + art.Page.Next, codeInvalidCursor},
	} {
		s.get(t, "/v1/changes?"+c.query).requireProblem(t, c.want)
	}
	s.get(t, "/v1/posts?"+url.Values{"tags": {"art"}, "after": {art.Page.Next}}.Encode()).requireProblem(t, codeCursorMismatch)

	// A position before pruned changes has expired; the current one is valid.
	newest := s.changes(t, "tags=art").Page.Next
	_, err := pgtest.Pool(t, x.db.URL).Exec(t.Context(), "UPDATE tagstream.changes SET at = at - interval '8 days'")
	require.NoError(t, err)
	n, done, err := x.writer.PruneChanges(t.Context(), 7*24*time.Hour, 1000)
	require.NoError(t, err)
	require.True(t, done)
	require.Positive(t, n)
	s.get(t, "/v1/changes?tags=art"+after).requireProblem(t, codeCursorExpired)
	require.Empty(t, s.changes(t, "tags=art&after="+newest).Changes)
}
