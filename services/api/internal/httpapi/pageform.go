package httpapi

import (
	"slices"
	"strings"
	"time"

	"github.com/tagstream/tagstream/services/api/internal/site"
)

// pageParams are the parameters of HTML pages of posts. formParams are those that the search bar
// sends, some of them empty or to be replaced by others.
var (
	pageParams = filters.and("after", "before")
	formParams = pageParams.and("q", "as", "window")
)

// formWindows are the spans that the search bar offers.
var formWindows = map[string]time.Duration{"hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}

// formTime is the layout of a time that a browser sends. It is read as UTC.
const formTime = "2006-01-02T15:04"

// canonical converts the search bar's parameters to those of a list. It reports whether they
// differ: then the browser is redirected to the result.
func canonical(form values, now time.Time) (q values, changed bool) {
	add := func(name, value string) {
		if value != "" && !slices.Contains(q, pair{name, value}) {
			q = append(q, pair{name, value})
		}
	}
	as, _ := form.get("as")
	match, _ := form.get("match")
	for _, p := range form {
		value := strings.TrimSpace(p.value)
		switch p.name {
		case "as":
		case "match":
			if value != "all" && value != "any" {
				add(p.name, value)
			}
		case "tags":
			if match == "all" {
				p.name = "all"
			}
			add(p.name, value)
		case "q":
			for _, word := range words(value) {
				name := as
				switch word[0] {
				case '-':
					name, word = "none", word[1:]
				case '+':
					name, word = "all", word[1:]
				}
				if name != "all" && name != "none" {
					name = "tags"
				}
				add(name, strings.TrimLeft(word, "#"))
			}
		case "window":
			if span, ok := formWindows[value]; ok && !q.has("since") {
				add("since", now.Add(-span).UTC().Truncate(time.Minute).Format(time.RFC3339))
			}
		case "lang", "author", "notAuthor":
			for _, word := range words(value) {
				add(p.name, word)
			}
		case "since", "until":
			if t, err := time.Parse(formTime, value); err == nil {
				value = t.Format(time.RFC3339)
			}
			add(p.name, value)
		default:
			add(p.name, value)
		}
	}
	return q, !slices.Equal(q, form)
}

// words splits a text at white space and commas.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\u3000' })
}

// formRoles are the parameters that have tags, with their names in the search bar.
var formRoles = []struct{ name, label string }{{"tags", "any"}, {"all", "all"}, {"none", "not"}}

var formFields = []site.Field{
	{Name: "lang", Label: "Language", Type: "text", Hint: "en pt-BR"},
	{Name: "author", Label: "Author", Type: "text", Hint: "did:plc:…"},
	{Name: "media", Label: "Media", Options: []site.Option{{Value: "", Label: "with or without"}, {Value: "any", Label: "any"}, {Value: "image", Label: "image"}, {Value: "gallery", Label: "gallery"},
		{Value: "video", Label: "video"}, {Value: "link", Label: "link"}, {Value: "none", Label: "none"}}},
	{Name: "maxTags", Label: "At most N tags", Type: "number", Hint: "no limit"},
	{Name: "selfLabels", Label: "Labelled by the author", Options: []site.Option{{Value: "", Label: "include"}, {Value: "exclude", Label: "exclude"}, {Value: "only", Label: "only"}}},
	{Name: "window", Label: "Window", Options: []site.Option{{Value: "", Label: "any time"}, {Value: "hour", Label: "last hour"}, {Value: "day", Label: "last day"}, {Value: "week", Label: "last week"}}},
	{Name: "since", Label: "Since (UTC)", Type: "datetime-local"},
	{Name: "until", Label: "Until (UTC)", Type: "datetime-local"},
}

// searchBar shows a query in the search bar.
func searchBar(q values) site.Search {
	var bar site.Search
	for i, p := range q {
		for _, role := range formRoles {
			if role.name == p.name {
				rest := slices.Delete(slices.Clone(q), i, i+1)
				bar.Chips = append(bar.Chips, site.Chip{Name: p.name, Value: p.value, Role: role.label, Without: "?" + rest.replace([]string{"after", "before"}, nil)})
			}
		}
	}
	for _, f := range formFields {
		f.Value = strings.Join(q.all(f.Name), " ")
		if t, err := time.Parse(time.RFC3339, f.Value); err == nil && f.Type == "datetime-local" {
			f.Value = t.UTC().Format(formTime)
		}
		bar.Open = bar.Open || f.Value != ""
		bar.Fields = append(bar.Fields, f)
	}
	return bar
}
