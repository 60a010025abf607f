package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// errNoSource is returned by a source that this machine does not have.
var errNoSource = errors.New("not available")

// source is a running server and how to end it.
type source struct {
	name string // for the line that names the source
	url  string // as a superuser, to any database
	stop func(context.Context) error
}

// openSource opens the first available server, in the order of the package comment.
func openSource(ctx context.Context) (source, error) {
	if given := os.Getenv("TEST_DATABASE_URL"); given != "" {
		stop := func(context.Context) error { return nil }
		return source{name: "the server of TEST_DATABASE_URL", url: given, stop: stop}, nil
	}
	var reasons []error
	for _, open := range []func(context.Context) (source, error){openContainer, openLocal} {
		s, err := open(ctx)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errNoSource) {
			return source{}, err
		}
		reasons = append(reasons, err)
	}
	return source{}, fmt.Errorf("TEST_DATABASE_URL is not set: %w", errors.Join(reasons...))
}
