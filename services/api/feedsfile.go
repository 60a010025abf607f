package api

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/services/api/internal/httpapi"
)

// feedsEvery is how often the feeds file is checked.
const feedsEvery = 2 * time.Second

// feedsFile is the feeds file and its last content.
type feedsFile struct {
	path string
	now  *httpapi.Feeds // nil if there is no file
	info fs.FileInfo
}

// Feeds are the Bluesky feeds that an operator declares in a file.
type Feeds = httpapi.Feeds

// LoadFeeds reads a feeds file. The error names the file and, if possible, the line.
func LoadFeeds(path string) (*Feeds, error) { return httpapi.LoadFeeds(path) }

// newFeedsFile reads the file that the config names, if any. The error is a *service.ConfigError.
func newFeedsFile(cfg Config, log *slog.Logger) (*feedsFile, error) {
	f := &feedsFile{path: cfg.FeedsFile}
	if f.path == "" {
		return f, nil
	}
	if u, err := url.Parse(cfg.PublicURL); err != nil || u.Path != "" {
		return nil, &service.ConfigError{Variable: service.Prefix + "PUBLIC_URL", Err: errors.New("has a path, but Bluesky finds feeds only at the root of a host")}
	}
	if _, err := f.read(); err != nil {
		return nil, &service.ConfigError{Variable: service.Prefix + "FEEDS_FILE", Err: err}
	}
	if !strings.HasPrefix(cfg.PublicURL, "https://") {
		log.Warn("AppViews cannot find the feeds: they use only https, but " + service.Prefix + "PUBLIC_URL is not an https URL")
	}
	return f, nil
}

// read reads the file if it changed, and reports whether it did.
func (f *feedsFile) read() (changed bool, err error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return false, err
	}
	if f.info != nil && info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size() {
		return false, nil
	}
	f.info = info
	feeds, err := httpapi.LoadFeeds(f.path)
	if err == nil {
		f.now = feeds
	}
	return err == nil, err
}

// watch reloads the file whenever it changes, until ctx ends. An invalid or missing file leaves the
// feeds unchanged.
func (f *feedsFile) watch(ctx context.Context, logger *slog.Logger, use func(*httpapi.Feeds)) {
	if f.path == "" {
		return
	}
	tick := time.NewTicker(feedsEvery)
	defer tick.Stop()
	logged := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := f.read()
		switch {
		case err != nil && err.Error() != logged:
			logged = err.Error()
			logger.Error("the feeds file is invalid: the feeds stay unchanged", "err", err)
		case changed:
			logged = ""
			use(f.now)
			logger.Info("reloaded the feeds file", "path", f.path)
		}
	}
}
