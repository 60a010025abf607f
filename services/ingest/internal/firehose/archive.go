package firehose

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bluesky-social/jetstream/segment"
)

const (
	planPath       = "/xrpc/network.bsky.jetstream.planSnapshot"
	getSegmentPath = "/xrpc/network.bsky.jetstream.getSegment"
	getBlockPath   = "/xrpc/network.bsky.jetstream.getBlock"

	// pageSegments is how many segments of a plan are used at a time.
	pageSegments = 16
	// archiveHeaders bounds the wait for the start of a host's answer.
	archiveHeaders = 30 * time.Second
)

// errChanged says that a segment was rewritten between two of its blocks.
var errChanged = errors.New("the segment was rewritten during the read")

// blockwise is the transport of one client. By default the client fetches whole segment files of
// about 280 MB, up to three at a time, into memory if most blocks of a segment match, as they do
// here. blockwise changes the host's plans: a whole segment becomes the list of all its blocks,
// which are fetched and released one by one; and plans are cut to pageSegments, which the client
// takes for a page and requests the next.
//
// A host may rewrite a segment while its blocks are fetched. blockwise rejects blocks of another
// version than the plan's.
type blockwise struct {
	base http.RoundTripper

	mu        sync.Mutex
	checksums map[string]string // of the segments of the plan in use
}

// newTransport returns the transport of all connections to hosts. It does not limit whole requests,
// since some last indefinitely; the watchdog bounds them.
func newTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = archiveHeaders
	return t
}

func (b *blockwise) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.base.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	switch req.URL.Path {
	case planPath:
		return b.plan(req, resp)
	case getBlockPath:
		return b.block(req, resp)
	}
	return resp, nil
}

// plan is the used part of an answer of planSnapshot.
type plan struct {
	PlannedThroughSeq int64           `json:"plannedThroughSeq"`
	SealedTipSeq      int64           `json:"sealedTipSeq"`
	Segments          []planSegment   `json:"segments"`
	Stats             json.RawMessage `json:"stats,omitempty"`
}

type planSegment struct {
	Name     string       `json:"name"`
	Index    int64        `json:"index"`
	Checksum string       `json:"checksum"`
	MinSeq   int64        `json:"minSeq"`
	MaxSeq   int64        `json:"maxSeq"`
	Mode     string       `json:"mode"`
	Blocks   []blockRange `json:"blocks,omitempty"`
}

// blockRange includes both ends.
type blockRange struct {
	First uint32 `json:"first"`
	Last  uint32 `json:"last"`
}

func (b *blockwise) plan(req *http.Request, resp *http.Response) (*http.Response, error) {
	p, err := readPlan(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, fmt.Errorf("read the plan of the archive: %w", err)
	}
	checksums := map[string]string{}
	for i := range p.Segments {
		s := &p.Segments[i]
		if s.Mode == "segment" {
			if err := b.split(req, s); err != nil {
				return nil, fmt.Errorf("read the header of segment %q: %w", s.Name, err)
			}
		}
		checksums[s.Name] = s.Checksum
	}
	b.mu.Lock()
	b.checksums = checksums
	b.mu.Unlock()
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode the plan of the archive: %w", err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	resp.ContentLength = int64(len(body))
	resp.Header.Del("Content-Length")
	return resp, nil
}

// readPlan reads a plan up to pageSegments. It skips the rest, which may be a hundred thousand
// segments, without storing it.
func readPlan(r io.Reader) (*plan, error) {
	p := &plan{Segments: []planSegment{}}
	cut := false
	dec := json.NewDecoder(r)
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		switch key {
		case "plannedThroughSeq":
			err = dec.Decode(&p.PlannedThroughSeq)
		case "sealedTipSeq":
			err = dec.Decode(&p.SealedTipSeq)
		case "stats":
			err = dec.Decode(&p.Stats)
		case "segments":
			if _, err = dec.Token(); err != nil {
				return nil, err
			}
			for dec.More() {
				var s planSegment
				if err = dec.Decode(&s); err != nil {
					return nil, err
				}
				if cut = len(p.Segments) == pageSegments; !cut {
					p.Segments = append(p.Segments, s)
				}
			}
			_, err = dec.Token()
		default:
			err = dec.Decode(&json.RawMessage{})
		}
		if err != nil {
			return nil, err
		}
	}
	if cut {
		p.PlannedThroughSeq = p.Segments[len(p.Segments)-1].MaxSeq
	}
	return p, nil
}

// split replaces a whole segment by the list of its blocks; their number is in the header of the
// segment's file.
func (b *blockwise) split(plan *http.Request, s *planSegment) error {
	// It has its own time limit, since a plan has many headers.
	ctx, cancel := context.WithTimeout(plan.Context(), archiveHeaders)
	defer cancel()
	u := *plan.URL
	u.Path, u.RawQuery = getSegmentPath, url.Values{"name": {s.Name}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=0-%d", segment.ReservedHeaderBytes-1))
	if auth := plan.Header.Get("Authorization"); auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := b.base.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusPartialContent && resp.StatusCode != http.StatusOK {
		return fmt.Errorf("host answers %s", resp.Status)
	}
	head := make([]byte, segment.ReservedHeaderBytes)
	if _, err := io.ReadFull(resp.Body, head); err != nil {
		return err
	}
	header, err := segment.ReadSealedHeader(bytes.NewReader(head))
	if err != nil {
		return err
	}
	if checksum := fmt.Sprintf("%016x", header.Checksum); checksum != s.Checksum {
		return fmt.Errorf("%w: its checksum is %s, planned was %s", errChanged, checksum, s.Checksum)
	}
	if header.BlockCount > 0 { // else as it is: there is nothing to hold
		s.Mode, s.Blocks = "blocks", []blockRange{{Last: header.BlockCount - 1}}
	}
	return nil
}

// block rejects a block of another version of its segment than the plan's. The version is in the
// ETag, "checksum:block".
func (b *blockwise) block(req *http.Request, resp *http.Response) (*http.Response, error) {
	name := req.URL.Query().Get("segment")
	b.mu.Lock()
	want := b.checksums[name]
	b.mu.Unlock()
	tag := strings.Trim(strings.TrimPrefix(resp.Header.Get("ETag"), "W/"), `"`)
	have, _, ok := strings.Cut(tag, ":")
	if !ok || want == "" || have == want {
		return resp, nil // also where something in between removed the tag
	}
	_ = resp.Body.Close()
	return nil, fmt.Errorf("segment %q: %w", name, errChanged)
}
