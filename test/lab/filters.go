package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// requestBound bounds the Work of one request of any kind: the store's budgets of 60,000 for the
// page and of 10,000 for the rows before it, and a margin for work outside the budgets.
const requestBound = 80_000

// recordBound bounds the rows of posts that one request may read in addition to the page: each
// costs 12.
const recordBound = 60_000/12 + 10_000/12 + 2*page

// Filter is the cost of a page of a filtered list.
type Filter struct {
	Name    string
	Found   int           // posts of the page
	Latency time.Duration // of all its requests, median
	// Most is the largest work of one request, Looked the largest number of records that one read.
	Most, Looked int
}

// filterCase is a query and the place of the page in its list.
type filterCase struct {
	name string
	q    query.PostQuery
}

func (s *index) filterCases(ctx context.Context) ([]filterCase, error) {
	// A place in the middle of the hot tag's list.
	posts, _, err := s.list(ctx, []string{hotTag})
	if err != nil {
		return nil, err
	}
	middle := posts[len(posts)/2].key
	at := keyset.Below(keyset.UUID(middle))
	since, until := posts[len(posts)*6/10].key.SortAt(), posts[len(posts)*4/10].key.SortAt()
	start := keyset.Start()
	dense := pairs()[2]
	var authors []string
	for _, a := range s.corpus.accounts[:query.MaxAuthors] {
		authors = append(authors, a.DID)
	}
	return []filterCase{
		{"any of 2, none of 1", query.PostQuery{Tags: []string{hotTag, wordTag(0)}, None: []string{floodTag}, From: start}},
		{"the same, deeper", query.PostQuery{Tags: []string{hotTag, wordTag(0)}, None: []string{floodTag}, From: at}},
		{"any of 1, none of 20", query.PostQuery{Tags: []string{floodTag}, None: depthSets()[3].tags[1:], From: start}},
		{"none leaves one in twenty", query.PostQuery{Tags: []string{dense.A}, None: []string{dense.B}, From: start}},
		{"a common language", query.PostQuery{Tags: []string{hotTag}, Langs: []string{"en"}, From: start}},
		{"the same, deeper", query.PostQuery{Tags: []string{hotTag}, Langs: []string{"en"}, From: at}},
		{"a rare language", query.PostQuery{Tags: []string{hotTag}, Langs: []string{"eu"}, From: start}},
		{"2 languages, any of 5", query.PostQuery{Tags: depthSets()[2].tags, Langs: []string{"de", "pt"}, From: start}},
		{"since and until", query.PostQuery{Tags: []string{hotTag}, Since: since, Until: until, From: start}},
		{"the same, deeper", query.PostQuery{Tags: []string{hotTag}, Since: since, Until: until, From: at}},
		{"all of 3", query.PostQuery{All: []string{floodTag, hotTag, wordTag(0)}, From: start}},
		{"author", query.PostQuery{Tags: []string{hotTag}, Authors: authors[:1], From: start}},
		{"20 authors", query.PostQuery{Tags: depthSets()[2].tags, Authors: authors, From: at}},
		{"not 20 authors", query.PostQuery{All: []string{floodTag, hotTag}, NotAuthors: authors, From: start}},
		{"few tags", query.PostQuery{Tags: []string{hotTag}, MaxTags: 2, From: start}},
		{"unlabelled pictures", query.PostQuery{Tags: []string{hotTag}, Media: event.HasImage, SelfLabels: query.ExcludeSelfLabels, MaxTags: 4, From: at}},
		{"rare, labelled media", query.PostQuery{Tags: []string{floodTag}, Media: event.HasGallery | event.HasLink, SelfLabels: query.OnlySelfLabels, From: start}},
		{"all at once", query.PostQuery{All: []string{floodTag, hotTag}, None: []string{wordTag(0)}, Langs: []string{"ja"}, Since: since, Until: until, From: at}},
	}, nil
}

// filters measures filtered lists.
func (s *index) filters(ctx context.Context) ([]Filter, error) {
	cases, err := s.filterCases(ctx)
	if err != nil {
		return nil, err
	}
	var out []Filter
	for _, c := range cases {
		s.log.Info("filters", "case", c.name)
		c.q.Limit = page
		f, err := s.filter(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("filters, %s: %w", c.name, err)
		}
		out = append(out, f)
	}
	return out, nil
}

func (s *index) filter(ctx context.Context, c filterCase) (Filter, error) {
	f := Filter{Name: c.name}
	want, err := s.expected(ctx, c.q)
	if err != nil {
		return f, err
	}
	var requests []query.PostQuery
	medians, err := s.timeInTurns(ctx, func(ctx context.Context) error {
		requests = requests[:0]
		keys, err := fill(ctx, s.reader, c.q, func(q query.PostQuery) { requests = append(requests, q) })
		if err != nil {
			return err
		}
		return sameKeys(keys, want)
	})
	if err != nil {
		return f, err
	}
	f.Latency, f.Found = medians[0], len(want)
	for i, q := range requests {
		counts, plan, err := s.costOurs(ctx, q)
		if err != nil {
			return f, err
		}
		f.Most, f.Looked = max(f.Most, counts.Work()), max(f.Looked, counts.Records)
		s.miss(plan.check(), "filters, %s, request %d", c.name, i+1)
	}
	if f.Most > requestBound {
		s.miss(fmt.Errorf("one request did work of %d, the bound is %d", f.Most, requestBound), "filters, %s", c.name)
	}
	if f.Looked > recordBound {
		s.miss(fmt.Errorf("one request looked at %d records, the bound is %d", f.Looked, recordBound), "filters, %s", c.name)
	}
	return f, nil
}

// expected finds the page by reading all posts.
func (s *index) expected(ctx context.Context, q query.PostQuery) ([]event.Key, error) {
	from := newest
	if q.From.Side != keyset.SideStart {
		from, _ = q.From.Key[0].UUID()
	}
	lo, hi := event.Key{}, newest
	if !q.Since.IsZero() {
		lo = event.FirstKey(q.Since)
	}
	if !q.Until.IsZero() {
		hi = event.FirstKey(q.Until)
	}
	media := []string{}
	for kind, trait := range map[string]event.Traits{"images": event.HasImage, "video": event.HasVideo, "gallery": event.HasGallery, "external": event.HasLink} {
		if q.Media&trait != 0 {
			media = append(media, "app.bsky.embed."+kind)
		}
	}
	if q.NoMedia {
		media = append(media, "")
	}
	some := func(names []string) []string { return append([]string{}, names...) } // nil would be NULL
	keys, err := collect(ctx, s.owner, `
		SELECT key FROM posts p
		 WHERE (cardinality($1::text[]) = 0 OR tags && $1::text[]) AND tags @> $8::text[] AND NOT tags && $2::text[] AND key < $3 AND key >= $4 AND key < $5
		   AND (cardinality($6::text[]) = 0 OR EXISTS (SELECT FROM unnest(langs) AS l, unnest($6::text[]) AS r WHERE lower(l) = r OR lower(l) LIKE r || '-%'))
		   AND (cardinality($9::text[]) = 0 OR account_id = ANY(ARRAY(SELECT id FROM accounts WHERE did = ANY($9::text[]))))
		   AND NOT account_id = ANY(ARRAY(SELECT id FROM accounts WHERE did = ANY($10::text[])))
		   AND ($11 = 0 OR cardinality(tags) <= $11)
		   AND (cardinality($12::text[]) = 0 OR coalesce(record::json->'embed'->>'$type', '') = ANY($12::text[]))
		   AND ($13 = 0 OR (json_array_length(record::json->'labels'->'values') > 0) IS TRUE = ($13 = $14))
		 ORDER BY key DESC LIMIT $7`, rowToKey, some(q.Tags), some(q.None), from, lo, hi, some(q.Langs), page, some(q.All),
		some(q.Authors), some(q.NotAuthors), q.MaxTags, media, q.SelfLabels, query.OnlySelfLabels)
	if err != nil {
		return nil, fmt.Errorf("find the page otherwise: %w", err)
	}
	return keys, nil
}
