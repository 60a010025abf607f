package firehose

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	listSegmentsPath  = "/xrpc/network.bsky.jetstream.listSegments"
	listSegmentsLimit = "1000"
	// listingLimit is the size limit of one page of the listing, in bytes.
	listingLimit = 8 << 20
)

// segmentPage is an answer of network.bsky.jetstream.listSegments.
type segmentPage struct {
	Cursor   string `json:"cursor"`
	Segments []struct {
		MaxSeq         uint64 `json:"maxSeq"`
		MinWitnessedAt int64  `json:"minWitnessedAt"`
		MaxWitnessedAt int64  `json:"maxWitnessedAt"`
	} `json:"segments"`
}

// sealedBefore returns the last sequence number of the archive's segments that hold nothing
// witnessed at t or later; 0 if there are none. Segments are listed oldest first.
func (r *Reader) sealedBefore(ctx context.Context, host string, t time.Time) (uint64, error) {
	var last uint64
	cursor := ""
	for {
		page, err := r.listSegments(ctx, host, cursor)
		if err != nil {
			return 0, fmt.Errorf("list the archive of %s: %w", host, err)
		}
		for _, s := range page.Segments {
			if s.MaxWitnessedAt >= t.UnixMicro() {
				return last, nil
			}
			last = s.MaxSeq
		}
		if page.Cursor == "" || page.Cursor == cursor || len(page.Segments) == 0 {
			return last, nil
		}
		cursor = page.Cursor
	}
}

func (r *Reader) listSegments(ctx context.Context, host, cursor string) (*segmentPage, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.Listing)
	defer cancel()
	q := url.Values{"limit": {listSegmentsLimit}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, host+listSegmentsPath+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if r.cfg.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+r.cfg.APIKey)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("host answers %s", resp.Status)
	}
	var page segmentPage
	if err := json.NewDecoder(io.LimitReader(resp.Body, listingLimit)).Decode(&page); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return &page, nil
}
