package model

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// fakeAPI answers from an index, as the API must. Its hooks make it wrong.
type fakeAPI struct {
	index   *Index
	through time.Time // how far the index has come
	// budget is how many posts one page may look at; 0 is no bound.
	budget int
	// bytes is how big a page is that ends before its limit, 0 is no bound.
	bytes int

	// mutate may spoil an answer before it is sent; it gets the request's path
	// and query and the answer as JSON values.
	mutate func(r *http.Request, answer map[string]any) map[string]any
	// query may change what is sought, matches replace the right rule, print
	// the right fingerprint of what a token is bound to.
	query   func(Query) Query
	matches func(q Query, p *Post) bool
	print   func(Query) string
	// shorten may spoil a page that the budget cut off.
	shorten func(p *fakePage, from Position, direction way)
	// link may spoil the parameters of a link.
	link func(kept map[string][]string)
	// counts replaces the list of tags, complete the completion of a prefix.
	counts   func() []TagCount
	complete func(counts []TagCount, prefix string) []TagCount
	// tagName may change the name in a path, historyEnd the time at which a
	// history ends; absentTag answers for a tag that no visible post has.
	tagName    func(string) string
	historyEnd func(time.Time) time.Time
	absentTag  func(string) map[string]any

	once  sync.Once
	posts List // the visible ones
}

// visible is the list of visible posts, made once.
func (f *fakeAPI) visible() List {
	f.once.Do(func() { f.posts = f.index.Posts() })
	return f.posts
}

// fakeToken is a place in a list of posts or in the list of tags.
type fakeToken struct {
	Print string
	Pos   Position
	Tag   TagCount
}

// anyPrint is that of the cursors of posts that come alone.
const anyPrint, tagsPrint = "any", "tags"

func (t fakeToken) String() string {
	data, _ := json.Marshal(t)
	return base64.RawURLEncoding.EncodeToString(data)
}

func parseToken(s string) fakeToken {
	data, _ := base64.RawURLEncoding.DecodeString(s)
	var t fakeToken
	_ = json.Unmarshal(data, &t)
	return t
}

// changed is a token at another position.
func changed(token string, change func(*Position)) string {
	t := parseToken(token)
	change(&t.Pos)
	return t.String()
}

func postObject(p Post, print string) map[string]any {
	var createdAt any
	if p.CreatedAt != "" {
		createdAt = p.CreatedAt
	}
	return map[string]any{
		"uri": p.URI, "cid": p.CID, "did": p.DID, "rkey": p.Rkey,
		"tags": p.Tags, "langs": append([]string{}, p.Langs...), "createdAt": createdAt,
		"indexedAt": p.IndexedAt.Format(timeFormat), "sortAt": p.SortAt().Format(timeFormat),
		"record": json.RawMessage(p.Record), "cursor": fakeToken{Print: print, Pos: Position{Place: p.Place}}.String(),
	}
}

// fakeProblem is an error answer.
type fakeProblem struct {
	status int
	code   string
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, problem := f.answer(w, r)
	if f.mutate != nil && problem == nil {
		answer = f.mutate(r, answer)
	}
	if answer == nil && problem == nil {
		problem = &fakeProblem{http.StatusNotFound, "not_found"}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if problem != nil {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(problem.status)
		answer = map[string]any{"title": http.StatusText(problem.status), "code": problem.code}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(answer)
}

func (f *fakeAPI) answer(w http.ResponseWriter, r *http.Request) (map[string]any, *fakeProblem) {
	q := r.URL.Query()
	path := r.URL.EscapedPath()
	switch {
	case path == "/v1/posts" || path == "/v1/getRecentRootPostsWithTags":
		return f.list(w, q, path)
	case path == "/v1/tags" && q.Has("prefix"):
		prefix, _ := normalTag(q.Get("prefix"))
		completed := complete
		if f.complete != nil {
			completed = f.complete
		}
		return map[string]any{"tags": tagObjects(completed(f.tagCounts(), prefix))}, nil
	case path == "/v1/tags":
		return f.tags(w, q)
	case path == "/v1/tag" || strings.HasPrefix(path, "/v1/tags/"):
		name, _ := url.PathUnescape(strings.TrimPrefix(path, "/v1/tags/"))
		if path == "/v1/tag" {
			name = q.Get("tag")
		}
		return f.tag(name), nil
	case path == "/v1/status":
		var through any
		if !f.through.IsZero() {
			through = f.through.Format(timeFormat)
		}
		return map[string]any{"version": "test", "indexedThrough": through, "totals": map[string]any{"posts": len(f.index.All()),
			"visiblePosts": len(f.visible()), "tags": len(f.index.TagCounts()), "deadLetters": f.index.DeadLetters()}}, nil
	}
	did, rkey, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/posts/"), "/")
	posts := f.visible()
	if i := slices.IndexFunc(posts, func(p Post) bool { return p.DID == did && p.Rkey == rkey }); i >= 0 {
		return postObject(posts[i], anyPrint), nil
	}
	return nil, nil
}

// parseFakeQuery reads the parameters that say what a list is.
func parseFakeQuery(params url.Values) (Query, *fakeProblem) {
	bad := func(code string) (Query, *fakeProblem) { return Query{}, &fakeProblem{http.StatusBadRequest, code} }
	set := func(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }
	q := Query{Tags: params["tags"], All: params.Get("match") == "all", None: params["none"]}.normal()
	q.Tags, q.None = set(q.Tags), set(q.None)
	if params.Has("match") && !q.All && params.Get("match") != "any" || slices.Contains(q.None, "") {
		return bad("invalid_query")
	}
	for _, lang := range params["lang"] {
		if lang = lowerASCII(lang); !langRange(lang) {
			return bad("invalid_lang")
		}
		q.Langs = append(q.Langs, lang)
	}
	q.Langs = set(q.Langs)
	for name, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if !params.Has(name) {
			continue
		}
		t, err := time.Parse(time.RFC3339Nano, params.Get(name))
		if err != nil {
			return bad("invalid_time")
		}
		*at = time.UnixMicro(t.Add(999).UnixMicro()).UTC()
	}
	return q, nil
}

func fakePrint(q Query) string { return q.String() }

type fakePage struct{ Page }

func (f *fakeAPI) list(w http.ResponseWriter, params url.Values, path string) (map[string]any, *fakeProblem) {
	q, problem := parseFakeQuery(params)
	if problem != nil {
		return nil, problem
	}
	print := fakePrint(q)
	if f.print != nil {
		print = f.print(q)
	}
	if f.query != nil {
		q = f.query(q)
	}
	limit := 50
	if path != "/v1/posts" {
		limit = 100
	}
	for _, name := range []string{"limit", "quantity", "first", "last"} {
		if params.Has(name) {
			limit, _ = strconv.Atoi(params.Get(name))
		}
	}
	direction, from := older, top
	if params.Has("last") || params.Has("before") {
		direction, from = newer, bottom
	}
	if token := params.Get("after") + params.Get("before") + params.Get("paginator"); token != "" {
		t := parseToken(token)
		if t.Print != print && t.Print != anyPrint {
			return nil, &fakeProblem{http.StatusBadRequest, "cursor_mismatch"}
		}
		from = t.Pos
	}
	page := f.page(q, from, direction, limit)
	posts := []any{}
	for _, p := range page.Posts {
		posts = append(posts, postObject(p, print))
	}
	answer := map[string]any{"posts": posts}
	next, previous := fakeToken{Print: print, Pos: page.Next}.String(), fakeToken{Print: print, Pos: page.Previous}.String()
	if path == "/v1/posts" {
		answer["page"] = map[string]any{"hasNext": page.HasNext, "hasPrevious": page.HasPrevious, "next": next, "previous": previous}
		f.setLinks(w, params, page.HasNext, page.HasPrevious, next, previous)
	} else if page.HasNext {
		answer["paginator"] = next
	}
	return answer, nil
}

// page looks at posts with any of the tags, at most as many as the budget says.
func (f *fakeAPI) page(q Query, from Position, direction way, limit int) fakePage {
	list := f.visible()
	if f.matches != nil {
		list = slices.DeleteFunc(slices.Clone(list), func(p Post) bool { return !f.matches(q, &p) })
	} else {
		list = list.Of(q)
	}
	turn := func(at Position, n int) Page {
		if direction == newer {
			return list.newer(at, n)
		}
		return list.older(at, n)
	}
	page := fakePage{turn(from, limit)}
	if f.bytes > 0 {
		size := 0
		for n := 1; n < len(page.Posts); n++ {
			p := page.Posts[n-1]
			if direction == newer {
				p = page.Posts[len(page.Posts)-n]
			}
			if size += len(p.Record) + maxTagBytes*len(p.Tags); size > f.bytes {
				page = fakePage{turn(from, n)}
			}
		}
	}
	if f.budget == 0 {
		return page
	}
	// What one request may look at: the next so many posts with any of the tags.
	seen := f.visible().Of(Query{Tags: q.Tags})
	end := seen.older(from, f.budget)
	if direction == newer {
		end = seen.newer(from, f.budget)
	}
	if more := end.HasNext && direction == older || end.HasPrevious && direction == newer; !more || len(page.Posts) >= limit {
		return page
	}
	if direction == older {
		page.Posts = slices.DeleteFunc(slices.Clone(page.Posts), func(p Post) bool { return end.Next.compare(&p) < 0 })
		page.Next, page.HasNext = end.Next, true
	} else {
		page.Posts = slices.DeleteFunc(slices.Clone(page.Posts), func(p Post) bool { return end.Previous.compare(&p) > 0 })
		page.Previous, page.HasPrevious = end.Previous, true
	}
	if f.shorten != nil {
		f.shorten(&page, from, direction)
	}
	return page
}

// setLinks links the pages next to this one.
func (f *fakeAPI) setLinks(w http.ResponseWriter, params url.Values, hasNext, hasPrevious bool, next, previous string) {
	link := func(from, to, name, token, rel string) string {
		kept := url.Values{}
		for k, v := range params {
			if k == from {
				k = to
			}
			if k != "after" && k != "before" {
				kept[k] = v
			}
		}
		if f.link != nil {
			f.link(kept)
		}
		kept.Set(name, token)
		return fmt.Sprintf(`<?%s>; rel=%q`, kept.Encode(), rel)
	}
	var links []string
	if hasNext {
		links = append(links, link("last", "first", "after", next, "next"))
	}
	if hasPrevious {
		links = append(links, link("first", "last", "before", previous, "prev"))
	}
	w.Header().Set("Link", strings.Join(links, ", "))
}

func (f *fakeAPI) tagCounts() []TagCount {
	if f.counts != nil {
		return f.counts()
	}
	return f.index.TagCounts()
}

func tagObjects(counts []TagCount) []any {
	tags := []any{}
	for _, c := range counts {
		tags = append(tags, map[string]any{"tag": c.Tag, "posts": c.Posts})
	}
	return tags
}

// tags is a page of the list of tags. A token has the tag next to which it is,
// Side being where: +1 before it, -1 behind it.
func (f *fakeAPI) tags(w http.ResponseWriter, params url.Values) (map[string]any, *fakeProblem) {
	counts := f.tagCounts()
	limit := 50
	if size := params.Get("limit") + params.Get("first") + params.Get("last"); size != "" {
		limit, _ = strconv.Atoi(size)
	}
	token := parseToken(params.Get("after") + params.Get("before"))
	if token.Print != tagsPrint && (params.Has("after") || params.Has("before")) {
		return nil, &fakeProblem{http.StatusBadRequest, "cursor_mismatch"}
	}
	at := 0 // how many are before the token
	if token.Print != "" {
		at = max(slices.Index(counts, token.Tag), 0)
		if token.Pos.Side < 0 {
			at++
		}
	}
	from, to := at, min(at+limit, len(counts))
	if params.Has("last") && !params.Has("before") {
		at = len(counts)
	}
	if params.Has("before") || params.Has("last") {
		from, to = max(at-limit, 0), at
	}
	next, previous := token, token
	next.Print, previous.Print = tagsPrint, tagsPrint
	if from < to {
		next = fakeToken{tagsPrint, Position{Side: -1}, counts[to-1]}
		previous = fakeToken{tagsPrint, Position{Side: +1}, counts[from]}
	}
	f.setLinks(w, params, to < len(counts), from > 0, next.String(), previous.String())
	return map[string]any{"tags": tagObjects(counts[from:to]), "page": map[string]any{
		"hasNext": to < len(counts), "hasPrevious": from > 0, "next": next.String(), "previous": previous.String()}}, nil
}

// tag is one tag, nil where no visible post has it.
func (f *fakeAPI) tag(name string) map[string]any {
	if f.tagName != nil {
		name = f.tagName(name)
	}
	list := f.visible().Of(Query{Tags: []string{name}})
	if len(list) == 0 && f.absentTag != nil {
		return f.absentTag(name)
	}
	if len(list) == 0 {
		return nil
	}
	through := f.through
	if f.historyEnd != nil {
		through = f.historyEnd(through)
	}
	info := list.tagInfo(through)
	history := []any{}
	for _, h := range info.History {
		history = append(history, map[string]any{"hour": h.Hour.Format(timeFormat), "posts": h.Posts})
	}
	name, _ = normalTag(name)
	return map[string]any{"tag": name, "posts": info.Posts, "history": history,
		"firstSeen": info.FirstSeen.Format(timeFormat), "lastSeen": info.LastSeen.Format(timeFormat)}
}
