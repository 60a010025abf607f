package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
)

// appViewTimeout is how long AppViews wait for a feed.
const appViewTimeout = 5 * time.Second

// maxCheckedBytes bounds a document that is checked.
const maxCheckedBytes = 1 << 20

// FeedCheck is the result for one document that AppViews fetch.
type FeedCheck struct {
	Document string `json:"document"`
	URL      string `json:"url"`
	// Problem is why an AppView would reject the document, "" if it would not.
	Problem string `json:"problem,omitempty"`
}

// Check fetches what an AppView fetches from the service at base, an absolute URL without a path.
func (f *Feeds) Check(ctx context.Context, client *http.Client, base string) []FeedCheck {
	var checks []FeedCheck
	check := func(document, target string, err error) {
		c := FeedCheck{Document: document, URL: target}
		if err != nil {
			c.Problem = err.Error()
		}
		checks = append(checks, c)
	}
	did, err := webDID(base)
	if err == nil && !strings.HasPrefix(base, "https://") {
		err = errors.New("AppViews use only https")
	}
	check("public URL", base, err)
	target := base + "/.well-known/did.json"
	check("DID document", target, checkDID(ctx, client, target, did, base))
	target = base + "/xrpc/app.bsky.feed.describeFeedGenerator"
	check("list of feeds", target, f.checkList(ctx, client, target, did))
	for _, feed := range f.feeds {
		target = base + "/xrpc/app.bsky.feed.getFeedSkeleton?" + url.Values{"feed": {f.uri(feed)}, "limit": {"5"}}.Encode()
		check("feed "+feed.rkey, target, checkSkeleton(ctx, client, target))
	}
	return checks
}

// webDID returns the did:web of a base URL. In atproto it can only name a host.
func webDID(base string) (string, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Host == "":
		return "", errors.New("is not an absolute URL")
	case u.Path != "":
		return "", errors.New("has a path, but Bluesky finds feeds only at the root of a host")
	}
	return "did:web:" + strings.ReplaceAll(u.Host, ":", "%3A"), nil
}

func checkDID(ctx context.Context, client *http.Client, target, did, base string) error {
	var doc didDocument
	if err := fetchJSON(ctx, client, target, &doc); err != nil {
		return err
	}
	if doc.ID != did {
		return fmt.Errorf("belongs to %q, but the URL belongs to %s", doc.ID, did)
	}
	i := slices.IndexFunc(doc.Services, func(s didService) bool { return s.ID == "#bsky_fg" || s.ID == did+"#bsky_fg" })
	if i < 0 || doc.Services[i].Type != "BskyFeedGenerator" {
		return errors.New("names no service #bsky_fg of type BskyFeedGenerator")
	}
	if doc.Services[i].Endpoint != base {
		return fmt.Errorf("points to %q", doc.Services[i].Endpoint)
	}
	return nil
}

func (f *Feeds) checkList(ctx context.Context, client *http.Client, target, did string) error {
	var list feedList
	if err := fetchJSON(ctx, client, target, &list); err != nil {
		return err
	}
	if list.DID != did {
		return fmt.Errorf("belongs to %q, but the URL belongs to %s", list.DID, did)
	}
	for _, feed := range f.feeds {
		if !slices.Contains(list.Feeds, feedURI{f.uri(feed)}) {
			return fmt.Errorf("lacks %s: does the running api use another feeds file?", f.uri(feed))
		}
	}
	return nil
}

func checkSkeleton(ctx context.Context, client *http.Client, target string) error {
	start := time.Now()
	var page feedSkeleton
	if err := fetchJSON(ctx, client, target, &page); err != nil {
		return err
	}
	if took := time.Since(start); took > appViewTimeout {
		return fmt.Errorf("took %s, but AppViews give up after %s", took.Round(time.Millisecond), appViewTimeout)
	}
	if len(page.Feed) == 0 && page.Cursor != "" {
		return errors.New("is an empty page with a cursor, which AppViews take for the end")
	}
	for _, p := range page.Feed {
		if !strings.HasPrefix(p.Post, "at://did:") || !strings.Contains(p.Post, "/"+event.Collection+"/") {
			return fmt.Errorf("%q is not the at-uri of a post", p.Post)
		}
	}
	return nil
}

// fetchJSON reads one document like an AppView.
func fetchJSON(ctx context.Context, client *http.Client, target string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*appViewTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the URL, which FeedCheck has
		}
		return fmt.Errorf("cannot be fetched: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxCheckedBytes))
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var failed struct{ Error, Message string }
		_ = json.Unmarshal(body, &failed) // the body of a proxy may not be JSON
		return errors.New(strings.TrimSpace(fmt.Sprintf("status %d %s %s", res.StatusCode, failed.Error, failed.Message)))
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("is not the expected JSON: %w", err)
	}
	return nil
}

// Record returns the body of com.atproto.repo.putRecord that publishes a feed of the service at
// base.
func (f *Feeds) Record(base, rkey string, now time.Time) ([]byte, error) {
	did, err := webDID(base)
	if err != nil {
		return nil, fmt.Errorf("the public URL %q %w", base, err)
	}
	var names []string
	for _, feed := range f.feeds {
		if names = append(names, feed.rkey); feed.rkey != rkey {
			continue
		}
		type record struct {
			Type        string `json:"$type"`
			DID         string `json:"did"`
			DisplayName string `json:"displayName"`
			Description string `json:"description,omitempty"`
			CreatedAt   string `json:"createdAt"`
		}
		return json.MarshalIndent(struct {
			Repo       string `json:"repo"`
			Collection string `json:"collection"`
			Rkey       string `json:"rkey"`
			Record     record `json:"record"`
		}{f.publisher, generatorCollection, rkey, record{generatorCollection, did, feed.name, feed.description, now.UTC().Format(time.RFC3339)}}, "", "  ")
	}
	return nil, fmt.Errorf("the file declares no feed %q: it has %s", rkey, strings.Join(names, ", "))
}

// Publisher returns the DID of the account whose repository has the feeds' records.
func (f *Feeds) Publisher() string { return f.publisher }
