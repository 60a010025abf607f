package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// code names a kind of failure. Clients branch on it, so it never changes.
type code string

// The codes, each with the one status that it comes with; see statuses.
const (
	codeInvalidQuery      code = "invalid_query"
	codeQueryTooLong      code = "query_too_long"
	codeUnknownParameter  code = "unknown_parameter"
	codeRepeatedParameter code = "repeated_parameter"
	codeConflicting       code = "conflicting_parameters"
	codeMissingTags       code = "missing_tags"
	codeTooManyTags       code = "too_many_tags"
	codeTagsTooLong       code = "tags_too_long"
	codeInvalidTag        code = "invalid_tag"
	codeInvalidMatch      code = "invalid_match"
	codeInvalidLang       code = "invalid_lang"
	codeInvalidAuthor     code = "invalid_author"
	codeInvalidMaxTags    code = "invalid_max_tags"
	codeInvalidMedia      code = "invalid_media"
	codeInvalidSelfLabels code = "invalid_self_labels"
	codeInvalidTime       code = "invalid_time"
	codeInvalidWindow     code = "invalid_window"
	codeInvalidPrefix     code = "invalid_prefix"
	codeInvalidLimit      code = "invalid_limit"
	codeInvalidPage       code = "invalid_page"
	codeInvalidCursor     code = "invalid_cursor"
	codeCursorMismatch    code = "cursor_mismatch"
	codeCursorExpired     code = "cursor_expired"
	codeInvalidHost       code = "invalid_host"
	codeNotFound          code = "not_found"
	codeMethodNotAllowed  code = "method_not_allowed"
	codeRateLimited       code = "rate_limited" // only sent by the proxy in deploy/proxy
	codeInternal          code = "internal_error"
	codeUnavailable       code = "unavailable"
	codeTimeout           code = "timeout"
	codeOverloaded        code = "overloaded"
	codeFilterNotReady    code = "filter_not_ready"
)

// status returns the HTTP status of answers with this code.
func (c code) status() int {
	switch c {
	case codeNotFound:
		return http.StatusNotFound
	case codeMethodNotAllowed:
		return http.StatusMethodNotAllowed
	case codeCursorExpired:
		return http.StatusGone
	case codeRateLimited:
		return http.StatusTooManyRequests
	case codeInternal:
		return http.StatusInternalServerError
	case codeUnavailable, codeTimeout, codeOverloaded, codeFilterNotReady:
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadRequest
	}
}

// When a 503 asks clients to retry: usually, and while traits are filled in, which takes minutes or
// hours.
const (
	retryUsual   = 2 * time.Second
	retryFilling = time.Minute
)

// retryAfter returns the Retry-After header of a 503, in seconds.
func (p *problem) retryAfter() string {
	after := retryUsual
	if p.Code == codeFilterNotReady {
		after = retryFilling
	}
	return strconv.Itoa(int(after.Seconds()))
}

// problem is an error as the client sees it (RFC 9457), without internals. Its type is about:blank,
// with which the title is the status phrase; Code identifies the problem.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   code   `json:"code"`
}

func (p *problem) Error() string { return string(p.Code) + ": " + p.Detail }

// fail returns a problem. The detail is one sentence that says what to do.
func fail(c code, format string, args ...any) *problem {
	return &problem{
		Type: "about:blank", Title: http.StatusText(c.status()), Status: c.status(),
		Detail: fmt.Sprintf(format, args...), Code: c,
	}
}

// problemOf is the only place where errors become answers. If the client is not at fault, the
// answer only says whether to retry; the caller logs the error itself.
func problemOf(err error) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, query.ErrNotFound):
		return fail(codeNotFound, "There is no such post in the index; it may be deleted, hidden, a reply, or without tags.")
	case errors.Is(err, query.ErrExpired):
		return fail(codeCursorExpired, "Start over: omit after to get the current position, list everything, then follow; the changes after this position are no longer kept.")
	case errors.Is(err, query.ErrFilling):
		return fail(codeFilterNotReady, "Leave out media and selfLabels, or try again later: after an upgrade the index is still computing which posts match them.")
	case store.TooSlow(err):
		return fail(codeTimeout, "The index took too long to answer; try again in a few seconds.")
	case store.Unavailable(err):
		return fail(codeUnavailable, "The index cannot be reached at the moment; try again in a few seconds.")
	}
	return fail(codeInternal, "Something failed on our side; repeating the request may not help.")
}

// writeProblem sends p.
func writeProblem(w http.ResponseWriter, p *problem) {
	body, err := encode(p)
	if err != nil {
		panic(err) // strings and a number always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	switch p.Status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", p.retryAfter())
	case http.StatusMethodNotAllowed:
		h.Set("Allow", allowedMethods)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // an error means that the client is gone
}
