package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	requestLimit = 10 * time.Second
	// errorBody is how much of an error's body an error carries, in bytes.
	errorBody = 500
)

// page is what this package reads of an answer of /v1/posts.
type page struct {
	Posts []struct {
		URI    string `json:"uri"`
		Cursor string `json:"cursor"`
	} `json:"posts"`
	Page struct {
		HasNext  bool   `json:"hasNext"`
		Next     string `json:"next"`
		Previous string `json:"previous"`
	} `json:"page"`
}

// client asks the api. Its connections are kept, and it takes no compression, which would measure itself.
type client struct {
	base string
	http *http.Client
}

func newClient(base string, connections int) *client {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	return &client{base: base, http: &http.Client{Transport: transport, Timeout: requestLimit}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// queryOf is a list's tags with, where they are not empty, a parameter and its value.
func queryOf(tags []string, limit int, name, value string) string {
	v := url.Values{"tags": tags, "limit": {strconv.Itoa(limit)}}
	if value != "" {
		v.Set(name, value)
	}
	return v.Encode()
}

// fetch reads a whole answer of /v1/posts.
func (c *client) fetch(ctx context.Context, query string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/posts?"+query, nil)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the api: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read the api's answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the api for %s: status %d: %s", query, res.StatusCode, body[:min(len(body), errorBody)])
	}
	return body, nil
}

func (c *client) posts(ctx context.Context, query string) (page, error) {
	var p page
	body, err := c.fetch(ctx, query)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return p, fmt.Errorf("read the api's answer to %s: %w", query, err)
	}
	return p, nil
}
