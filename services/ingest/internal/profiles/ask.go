package profiles

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// maxAnswer and maxHeader are many times what 25 profiles and a header need, uncompressed.
	maxAnswer = 1 << 20
	maxHeader = 64 << 10
	// dialTimeout bounds connecting, and then the TLS handshake.
	dialTimeout = 5 * time.Second
	method      = "/xrpc/app.bsky.actor.getProfiles"
)

// Outcome is how a request ended.
type Outcome string

// The outcomes. The set is closed.
const (
	OK Outcome = "ok"
	// Away: no connection, or it broke.
	Away Outcome = "away"
	// Slow: no answer in time.
	Slow Outcome = "slow"
	// RateLimited: the service asks for a pause.
	RateLimited Outcome = "rate_limited"
	// Refused: the service will never accept this request.
	Refused Outcome = "refused"
	// BadStatus: any other status but 200, including redirects.
	BadStatus Outcome = "bad_status"
	// TooBig: the answer is over maxAnswer.
	TooBig Outcome = "too_big"
	// Unreadable: the answer is not what the lexicon says.
	Unreadable Outcome = "unreadable"
)

// Outcomes lists them all.
var Outcomes = []Outcome{OK, Away, Slow, RateLimited, Refused, BadStatus, TooBig, Unreadable}

// requestError is a request that failed. retryAfter is the pause that the service asks for, 0 for
// none.
type requestError struct {
	outcome    Outcome
	retryAfter time.Duration
	err        error
}

func (e *requestError) Error() string { return string(e.outcome) + ": " + e.err.Error() }
func (e *requestError) Unwrap() error { return e.err }

func newClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2: true, MaxConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: maxHeader,
		},
		// Only this host is trusted, not those it redirects to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask requests the profiles of authors, and returns the answer and its date, zero if it has none.
// The error is a *requestError.
func (p *Profiles) ask(ctx context.Context, dids []string) (body []byte, date time.Time, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+method+"?"+url.Values{"actors": dids}.Encode(), nil)
	if err != nil {
		return nil, date, &requestError{outcome: Refused, err: err}
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "tagstream")
	resp, err := p.client.Do(r)
	if err != nil {
		return nil, date, connectionError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, date, &requestError{outcomeOf(resp.StatusCode), retryAfter(resp.Header.Get("Retry-After"), p.now()), fmt.Errorf("status %d", resp.StatusCode)}
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, date, connectionError(err)
	case len(body) > maxAnswer:
		return nil, date, &requestError{outcome: TooBig, err: fmt.Errorf("more than %d bytes", maxAnswer)}
	}
	date, _ = http.ParseTime(resp.Header.Get("Date"))
	return body, date, nil
}

// connectionError returns a failure of the connection, without the URL, which names all the authors.
func connectionError(err error) *requestError {
	out := &requestError{outcome: Away, err: err}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		out.outcome = Slow
	}
	var of *url.Error
	if errors.As(err, &of) {
		out.err = of.Err
	}
	return out
}

func outcomeOf(code int) Outcome {
	switch code {
	case http.StatusTooManyRequests:
		return RateLimited
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge:
		return Refused
	}
	return BadStatus
}

// retryAfter reads the header (RFC 9110, 10.2.3): seconds or a date.
func retryAfter(header string, now time.Time) time.Duration {
	var d time.Duration
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		d = at.Sub(now)
	}
	return min(max(d, 0), maxRetryAfter)
}
