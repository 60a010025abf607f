package poll_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

// recorder is a test that can fail without failing this one.
type recorder struct {
	testing.TB
	message string
}

func (r *recorder) Helper()                  {}
func (r *recorder) Context() context.Context { return context.Background() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.message = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// run calls f as a separate test and returns its failure, or "".
func run(t *testing.T, f func(testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(r)
	}()
	<-done
	return r.message
}

func TestUntil(t *testing.T) {
	t.Parallel()
	looksThat := func(succeedAt int) (check func() (bool, string), looks *int) {
		looks = new(int)
		return func() (bool, string) {
			*looks++
			return *looks == succeedAt, fmt.Sprintf("look %d", *looks)
		}, looks
	}
	t.Run("at once", func(t *testing.T) {
		t.Parallel()
		check, looks := looksThat(1)
		require.Empty(t, run(t, func(r testing.TB) { poll.Until(r, 0, check) }))
		require.Equal(t, 1, *looks)
	})
	t.Run("after some looks", func(t *testing.T) {
		t.Parallel()
		check, looks := looksThat(4)
		require.Empty(t, run(t, func(r testing.TB) { poll.Until(r, time.Minute, check) }))
		require.Equal(t, 4, *looks)
	})
	t.Run("never", func(t *testing.T) {
		t.Parallel()
		check, looks := looksThat(-1)
		message := run(t, func(r testing.TB) { poll.Until(r, 30*time.Millisecond, check) })
		require.Contains(t, message, fmt.Sprintf("last seen: look %d", *looks))
	})
}

func TestNoErrorReportsTheLastError(t *testing.T) {
	t.Parallel()
	message := run(t, func(r testing.TB) {
		poll.NoError(r, 0, func() error { return errors.New("still away") })
	})
	require.Contains(t, message, "still away")
	require.Empty(t, run(t, func(r testing.TB) { poll.NoError(r, 0, func() error { return nil }) }))
}
