package feeds

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// JSONType is the media type of JSON Feed.
const JSONType = "application/feed+json"

type jsonFeed struct {
	Version     string     `json:"version"`
	Title       string     `json:"title"`
	Description string     `json:"description,omitempty"`
	Home        string     `json:"home_page_url"`
	Self        string     `json:"feed_url"`
	Next        string     `json:"next_url,omitempty"`
	Items       []jsonItem `json:"items"`
}

type jsonItem struct {
	ID        string       `json:"id"`
	URL       string       `json:"url"`
	Title     string       `json:"title"`
	HTML      string       `json:"content_html"`
	Text      string       `json:"content_text"`
	Image     string       `json:"image,omitempty"`
	Published string       `json:"date_published"`
	Modified  string       `json:"date_modified"`
	Authors   []jsonAuthor `json:"authors"`
	Tags      []string     `json:"tags,omitempty"`
	Language  string       `json:"language,omitempty"`
}

type jsonAuthor struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

// JSON writes a feed as JSON Feed 1.1. Its next_url leads to older posts.
func (m Media) JSON(f Feed) ([]byte, error) {
	out := jsonFeed{
		Version: "https://jsonfeed.org/version/1.1", Title: f.Title, Description: f.Description,
		Home: f.Home, Self: f.Self, Next: f.Next, Items: []jsonItem{},
	}
	for _, it := range m.items(f.Posts) {
		x := jsonItem{
			ID: it.id, URL: it.link, Title: it.title, HTML: it.html, Text: it.text,
			Published: rfc3339(it.post.Published), Modified: rfc3339(it.post.Updated),
			Authors: []jsonAuthor{{it.author, it.profile}}, Tags: it.tags, Language: it.lang,
		}
		if len(it.pictures) > 0 {
			x.Image = it.pictures[0].url
		}
		out.Items = append(out.Items, x)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(out); err != nil {
		return nil, fmt.Errorf("write JSON Feed: %w", err)
	}
	return b.Bytes(), nil
}
