package firehose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/coder/websocket"

	"github.com/tagstream/tagstream/pkg/event"
)

const (
	subscribePath = "/xrpc/network.bsky.jetstream.subscribeEvents"
	subprotocol   = "xrpc.v1.json"
	// frameLimit is the largest frame, the client's own limit.
	frameLimit = 32 << 20
)

// kinds are the kinds that Tagstream follows, and collections those whose commits it follows.
var (
	kinds       = [...]jetstream.Kind{jetstream.KindCommit, jetstream.KindAccount, jetstream.KindSync, jetstream.KindIdentity}
	collections = [...]string{event.Collection, event.ProfileCollection}
)

// rejectedError is a host's refusal of a websocket. The error's name is from the lexicon of
// subscribeEvents.
type rejectedError struct {
	status  int
	name    string
	message string
}

func (e *rejectedError) Error() string {
	return fmt.Sprintf("host answers %d %s: %s", e.status, e.name, e.message)
}

// isTooOld reports whether a host refused a sequence number because it is older than its live
// window. Such a number lies in its own past.
func isTooOld(err error) bool {
	var r *rejectedError
	return errors.As(err, &r) && r.name == "CursorTooOld"
}

// probe is a raw websocket to a host, for questions that the client cannot ask. It is read from one
// goroutine.
type probe struct {
	conn *websocket.Conn
	// now is the host's clock when it answered, to the second.
	now time.Time
}

// frame is the part of a message that a probe needs.
type frame struct {
	seq  uint64
	time time.Time
	id   identity
	// info is the name of an advisory; the frame is then not an event.
	info string
	// followed reports that it is an event of a kind that Tagstream follows.
	followed bool
}

// dial opens a probe. A nil cursor is the tip. filtered requests only events that Tagstream
// follows. The error is a *rejectedError if the host refused.
func dial(ctx context.Context, client *http.Client, host string, cursor *uint64, filtered bool) (*probe, error) {
	q := url.Values{}
	if cursor != nil {
		q.Set("cursor", strconv.FormatUint(*cursor, 10))
	}
	if filtered {
		for _, k := range kinds {
			q.Add("kinds", string(k))
		}
		for _, c := range collections {
			q.Add("collections", c)
		}
	}
	//nolint:bodyclose // the library closes it, or keeps its beginning in memory
	conn, resp, err := websocket.Dial(ctx, host+subscribePath+"?"+q.Encode(), &websocket.DialOptions{
		HTTPClient:      client,
		CompressionMode: websocket.CompressionDisabled,
		Subprotocols:    []string{subprotocol},
	})
	if err != nil {
		if resp == nil || resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, fmt.Errorf("dial %s: %w", host, err)
		}
		return nil, fmt.Errorf("dial %s: %w", host, rejection(resp))
	}
	conn.SetReadLimit(frameLimit)
	p := &probe{conn: conn, now: time.Now()}
	if t, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		p.now = t
	}
	return p, nil
}

func rejection(resp *http.Response) error {
	e := &rejectedError{status: resp.StatusCode, name: http.StatusText(resp.StatusCode)}
	var envelope struct{ Error, Message string }
	if resp.Body != nil {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // the library keeps that much
		if json.Unmarshal(body, &envelope) == nil && envelope.Error != "" {
			e.name, e.message = envelope.Error, envelope.Message
		}
	}
	return e
}

// next returns the next event or advisory. It skips frames of unknown kinds and unreadable ones.
func (p *probe) next(ctx context.Context) (frame, error) {
	for {
		_, data, err := p.conn.Read(ctx)
		if err != nil {
			return frame{}, fmt.Errorf("read: %w", err)
		}
		var f struct {
			Type    string `json:"$type"`
			Error   string `json:"error"`
			Message string `json:"message"`
			Payload struct {
				Type string `json:"$type"`
				Seq  int64  `json:"seq"`
				Time string `json:"time"`
				Name string `json:"name"`

				DID  string `json:"did"`
				Rkey string `json:"rkey"`
				Rev  string `json:"rev"`
				Sync struct {
					Rev string `json:"rev"`
				} `json:"sync"`
				Account struct {
					Time string `json:"time"`
				} `json:"account"`
				Identity struct {
					Time string `json:"time"`
				} `json:"identity"`
			} `json:"payload"`
		}
		err = json.Unmarshal(data, &f)
		switch {
		case err != nil:
			continue
		case f.Type == "error":
			return frame{}, fmt.Errorf("host reports %s: %s", f.Error, f.Message)
		case f.Type != "message":
			continue
		case f.Payload.Seq > 0:
			t, err := time.Parse(time.RFC3339Nano, f.Payload.Time)
			if err != nil {
				continue
			}
			_, kind, _ := strings.Cut(f.Payload.Type, "#")
			return frame{
				seq: uint64(f.Payload.Seq), time: t.UTC(), followed: slices.Contains(kinds[:], jetstream.Kind(kind)),
				id: identity{
					did: f.Payload.DID, rkey: f.Payload.Rkey, rev: f.Payload.Rev + f.Payload.Sync.Rev,
					accountTime: f.Payload.Account.Time, handleTime: f.Payload.Identity.Time,
				},
			}, nil
		case f.Payload.Name != "":
			return frame{info: f.Payload.Name}, nil
		}
	}
}

func (p *probe) close() { _ = p.conn.CloseNow() }

// errSilent is the error of a host that delivers nothing at a cursor in time.
var errSilent = errors.New("the host is silent")

// frames returns a host's events from a cursor on; nil is its tip. An error comes last: that of
// dial, errSilent if patience runs out, or ctx's.
func (r *run) frames(ctx context.Context, host string, cursor *uint64, filtered bool, patience time.Duration) iter.Seq2[frame, error] {
	return func(yield func(frame, error) bool) {
		p, err := r.dial(ctx, host, cursor, filtered)
		if err != nil {
			yield(frame{}, err)
			return
		}
		defer p.close()
		wait, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		for {
			f, err := p.next(wait)
			switch {
			case err != nil && ctx.Err() != nil:
				err = context.Cause(ctx)
			case err != nil && wait.Err() != nil:
				err = errSilent
			case err == nil && f.info != "":
				continue
			}
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// eventAt returns the first event that a host delivers at a cursor. The error is like that of
// frames.
func (r *run) eventAt(ctx context.Context, host string, cursor uint64) (f frame, err error) {
	for f, err = range r.frames(ctx, host, &cursor, false, r.timing.Verify) {
		break
	}
	return f, err
}

func (r *run) dial(ctx context.Context, host string, cursor *uint64, filtered bool) (*probe, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.Dial)
	defer cancel()
	return dial(ctx, r.http, host, cursor, filtered)
}
