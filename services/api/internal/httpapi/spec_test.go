package httpapi

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

func loadSpec(t testing.TB) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapi)
	require.NoError(t, err)
	return doc
}

func TestSpecIsValid(t *testing.T) {
	t.Parallel()
	doc := loadSpec(t)
	require.NoError(t, doc.Validate(t.Context(), openapi3.EnableExamplesValidation()))
}

// TestSpecServesGenerators checks what OpenAPI linters and client generators need: descriptions of
// every operation and of authentication, the possible errors, and no object without fields, from
// which a generator makes a type that cannot have any.
func TestSpecServesGenerators(t *testing.T) {
	t.Parallel()
	doc := loadSpec(t)
	require.NotNil(t, doc.Security, "explicitly no authentication")
	require.Empty(t, doc.Security)
	require.NotEmpty(t, doc.Info.License.Identifier)
	require.NotEmpty(t, doc.Info.Contact.URL)
	known, ids := map[string]bool{}, map[string]bool{}
	for _, tag := range doc.Tags {
		require.NotEmpty(t, tag.Description, tag.Name)
		known[tag.Name] = true
	}
	for path, item := range doc.Paths.Map() {
		op := item.Get
		require.Regexp(t, `^[a-z][A-Za-z]+$`, op.OperationID, path)
		require.False(t, ids[op.OperationID], "%s is not unique", op.OperationID)
		ids[op.OperationID] = true
		require.NotEmpty(t, op.Summary, path)
		require.NotEmpty(t, op.Description, path)
		require.Len(t, op.Tags, 1, path)
		require.True(t, known[op.Tags[0]], "%s: %s is declared", path, op.Tags[0])
		require.NotNil(t, op.Responses.Value("400"), path)
		if len(item.Servers) == 0 { // served through the proxy
			require.NotNil(t, op.Responses.Value("429"), path)
		}
		for _, p := range op.Parameters {
			require.NotEmpty(t, p.Value.Description, "%s: %s", path, p.Value.Name)
		}
		for _, r := range op.Responses.Map() {
			require.NotEmpty(t, *r.Value.Description, path)
			for _, c := range r.Value.Content {
				checkObjects(t, path, c.Schema)
			}
		}
	}
}

func checkObjects(t *testing.T, where string, s *openapi3.SchemaRef) {
	t.Helper()
	if s == nil {
		return
	}
	v := s.Value
	require.NotNil(t, v.Type, "%s has a type", where)
	if v.Type.Is("object") && len(v.Properties) == 0 {
		free := v.AdditionalProperties.Has
		require.True(t, free != nil && *free, "%s has fields or declares that it can have any", where)
	}
	checkObjects(t, where+"[]", v.Items)
	for name, p := range v.Properties {
		checkObjects(t, where+"."+name, p)
	}
}

// TestSpecExamples sends the examples of the parameters to an index with the post of the examples:
// each with the required ones, then all of a route together. All are answered.
func TestSpecExamples(t *testing.T) {
	t.Parallel()
	doc := loadSpec(t)
	x := newIndex(t)
	example := func(path, name string) string {
		return doc.Paths.Value(path).Get.Parameters.GetByInAndName("path", name).Example.(string)
	}
	const one = "/v1/posts/{did}/{rkey}"
	x.author.DID = example(one, "did")
	at := time.Date(2026, 11, 20, 21, 44, 58, 201e6, time.UTC)
	_, c := x.newPost(example(one, "rkey"), at, "art", "ink")
	c.New.Key, c.New.Langs = event.NewKey(at, event.URI(x.author.DID, c.New.Rkey)), []string{"en"}
	c.New.Record = []byte(strings.Replace(string(c.New.Record), "{", `{"embed":{"$type":"app.bsky.embed.images","images":[]},`, 1))
	x.write(t, c)
	s := serve(t, x.open(t), withFeeds(t, "art", "tags=art"))
	var admin Admin
	admin.Use(s.handler)
	ask := func(path, query string) {
		t.Helper()
		if path == "/v1/admin/tags" {
			require.Equal(t, http.StatusOK, askAdmin(t, &admin, path+query).status, path+query)
			return
		}
		if path == "/v1/stream" { // the response does not end
			s.follow(t, strings.TrimPrefix(query, "?"))
			return
		}
		a := s.get(t, path+query)
		require.Equal(t, http.StatusOK, a.status, "%s: %s", path+query, a.body)
		if strings.Contains(query, "tags=") && !strings.HasSuffix(path, ".opml") && path != "/v1/changes" {
			require.Contains(t, string(a.body), c.New.Rkey, "%s finds the post", path+query)
		}
	}
	requests := 0
	for path, item := range doc.Paths.Map() {
		required, all := url.Values{}, url.Values{}
		var optional []url.Values
		for _, ref := range item.Get.Parameters {
			p := ref.Value
			values := url.Values{}
			switch e := p.Example.(type) {
			case nil:
				require.False(t, p.Required, "%s: %s is required and has no example", path, p.Name)
				continue
			case []any:
				for _, v := range e {
					values.Add(p.Name, fmt.Sprint(v))
				}
			default:
				values.Set(p.Name, fmt.Sprint(e))
			}
			switch {
			case p.In == "path":
				path = strings.Replace(path, "{"+p.Name+"}", url.PathEscape(values.Get(p.Name)), 1)
				continue
			case p.Required || p.Name == "tags":
				maps.Copy(required, values)
			default:
				optional = append(optional, values)
			}
			maps.Copy(all, values)
		}
		for _, values := range append(optional, nil, all) {
			together := maps.Clone(required)
			maps.Copy(together, values)
			query := ""
			if len(together) > 0 {
				query = "?" + together.Encode()
			}
			ask(path, query)
			requests++
		}
	}
	require.Greater(t, requests, 2*doc.Paths.Len())
}
