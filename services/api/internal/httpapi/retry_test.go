package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/query"
)

// shaky is an index whose connections break.
type shaky struct {
	Index
	fail  error
	times int // -1 means always
	calls int
}

func (s *shaky) Status(context.Context) (query.Status, error) {
	s.calls++
	if s.times < 0 || s.calls <= s.times {
		return query.Status{}, fmt.Errorf("read the status: %w", s.fail)
	}
	return query.Status{}, nil
}

func TestBrokenConnections(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		index  *shaky
		status int
		once   bool
	}{
		{name: "a few", index: &shaky{fail: io.ErrUnexpectedEOF, times: 9}, status: http.StatusOK},
		{name: "forever", index: &shaky{fail: io.ErrUnexpectedEOF, times: -1}, status: http.StatusServiceUnavailable},
		{name: "too slow", index: &shaky{fail: context.DeadlineExceeded, times: -1}, status: http.StatusServiceUnavailable, once: true},
		{name: "no schema", index: &shaky{fail: store.ErrNotMigrated, times: -1}, status: http.StatusServiceUnavailable, once: true},
		{name: "an internal error", index: &shaky{fail: errors.New("oops"), times: -1}, status: http.StatusInternalServerError, once: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			res, err := http.Get(serve(t, c.index).url + "/v1/status")
			require.NoError(t, err)
			defer res.Body.Close()
			require.Equal(t, c.status, res.StatusCode)
			if c.once {
				require.Equal(t, 1, c.index.calls)
			} else {
				require.Greater(t, c.index.calls, 9)
			}
		})
	}
}
