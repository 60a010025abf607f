package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/gorilla/mux"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/tracing"
)

func untraced(int) {}

// trace begins the span of a request, in the caller's trace if the request names one; end ends it
// with the status of the answer. The span has neither the path nor the query, which show what a
// person searched for.
func (h *Handler) trace(r *http.Request) (_ *http.Request, end func(status int)) {
	if h.tracer == nil {
		return r, untraced
	}
	method, name := r.Method, r.Method
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		method, name = "_OTHER", "HTTP"
	}
	attributes := append(make([]attribute.KeyValue, 0, 3), semconv.HTTPRequestMethodKey.String(method), semconv.URLScheme("http"))
	if route := mux.CurrentRoute(r); route != nil {
		if path, err := route.GetPathTemplate(); err == nil {
			attributes = append(attributes, semconv.HTTPRoute(path))
			name += " " + path
		}
	}
	ctx, span := h.tracer.Start(tracing.Extract(r.Context(), propagation.HeaderCarrier(r.Header)), name,
		trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attributes...))
	return r.WithContext(ctx), func(status int) {
		switch {
		case status == statusClientGone: // nothing was sent
			span.SetAttributes(semconv.ErrorTypeKey.String("client_gone"))
		case status >= http.StatusInternalServerError:
			span.SetStatus(codes.Error, "")
			span.SetAttributes(semconv.HTTPResponseStatusCode(status), semconv.ErrorTypeKey.String(strconv.Itoa(status)))
		default:
			span.SetAttributes(semconv.HTTPResponseStatusCode(status))
		}
		span.End()
	}
}

// tracedIndex is an index that records a span for each query of a traced request.
type tracedIndex struct {
	Index
	tracer trace.Tracer
}

// begin begins the span of a query; end ends it with the number of rows.
func (x tracedIndex) begin(ctx context.Context, summary string) (_ context.Context, end func(rows int, err error)) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, func(int, error) {}
	}
	summary = "SELECT " + summary
	ctx, span := x.tracer.Start(ctx, summary, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(semconv.DBSystemNamePostgreSQL, semconv.DBOperationName("SELECT"), semconv.DBQuerySummary(summary)))
	return ctx, func(rows int, err error) {
		switch {
		case err == nil:
			span.SetAttributes(semconv.DBResponseReturnedRows(rows))
		case errors.Is(err, query.ErrNotFound):
			span.SetAttributes(semconv.DBResponseReturnedRows(0))
		default:
			span.SetStatus(codes.Error, "")
			kind := "_OTHER"
			switch {
			case store.TooSlow(err):
				kind = "timeout"
			case store.Unavailable(err):
				kind = "unavailable"
			}
			span.SetAttributes(semconv.ErrorTypeKey.String(kind))
		}
		span.End()
	}
}

func (x tracedIndex) Posts(ctx context.Context, q query.PostQuery) (query.PostPage, error) {
	ctx, end := x.begin(ctx, "posts")
	page, err := x.Index.Posts(ctx, q)
	end(len(page.Rows), err)
	return page, err
}

func (x tracedIndex) Changes(ctx context.Context, q query.ChangeQuery) (query.ChangePage, error) {
	ctx, end := x.begin(ctx, "changes")
	page, err := x.Index.Changes(ctx, q)
	end(len(page.Changes), err)
	return page, err
}

func (x tracedIndex) Post(ctx context.Context, did, rkey string) (query.PostRow, error) {
	ctx, end := x.begin(ctx, "post")
	row, err := x.Index.Post(ctx, did, rkey)
	end(1, err)
	return row, err
}

func (x tracedIndex) Quoted(ctx context.Context, names []query.PostName) ([]query.PostRow, error) {
	ctx, end := x.begin(ctx, "quoted posts")
	rows, err := x.Index.Quoted(ctx, names)
	end(len(rows), err)
	return rows, err
}

func (x tracedIndex) Tags(ctx context.Context, q query.TagQuery) (query.TagPage, error) {
	ctx, end := x.begin(ctx, "tags")
	page, err := x.Index.Tags(ctx, q)
	end(len(page.Rows), err)
	return page, err
}

func (x tracedIndex) TagsWithPrefix(ctx context.Context, prefix string) ([]query.TagCount, error) {
	ctx, end := x.begin(ctx, "tags with prefix")
	tags, err := x.Index.TagsWithPrefix(ctx, prefix)
	end(len(tags), err)
	return tags, err
}

func (x tracedIndex) TagHistory(ctx context.Context, tag string) (query.TagHistory, error) {
	ctx, end := x.begin(ctx, "tag history")
	history, err := x.Index.TagHistory(ctx, tag)
	end(len(history.Hours), err)
	return history, err
}

func (x tracedIndex) Popular(ctx context.Context, hours int) (query.Popularity, error) {
	ctx, end := x.begin(ctx, "popular tags")
	found, err := x.Index.Popular(ctx, hours)
	end(len(found.Tags), err)
	return found, err
}

func (x tracedIndex) TagsInUse(ctx context.Context, names []string) ([]string, error) {
	ctx, end := x.begin(ctx, "tags in use")
	used, err := x.Index.TagsInUse(ctx, names)
	end(len(used), err)
	return used, err
}

func (x tracedIndex) RankedTags(ctx context.Context, offset, limit int) ([]query.TagCount, int64, error) {
	ctx, end := x.begin(ctx, "ranked tags")
	tags, total, err := x.Index.RankedTags(ctx, offset, limit)
	end(len(tags), err)
	return tags, total, err
}

func (x tracedIndex) Status(ctx context.Context) (query.Status, error) {
	ctx, end := x.begin(ctx, "status")
	status, err := x.Index.Status(ctx)
	end(1, err)
	return status, err
}
