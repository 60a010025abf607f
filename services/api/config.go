package api

import (
	"errors"
	"fmt"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/services/api/internal/feeds"
)

// Config is an operator's configuration of the API.
type Config struct {
	// Database is the index, with a role that may only select. DefaultConns 0 means 8.
	Database store.Options
	// Listen is the host:port to serve on. It is ignored if Deps has a listener.
	Listen string
	// CursorKeys sign page tokens: the first signs, all verify. If there are none, New reads them
	// from CursorKeysFile, in the format of keyset.ParseKeys.
	CursorKeys     []keyset.Key
	CursorKeysFile string
	// PublicURL is the absolute public URL of the API, without a trailing slash; "" means the host
	// that each request names.
	PublicURL string
	// FeedsFile declares Bluesky feeds; "" means none. Run reloads it when it changes.
	FeedsFile string
	// Media says how feeds show pictures: "cdn" (from Bluesky's CDN), "link" or "off"; "" means
	// "cdn".
	Media string
	// MaxInFlight is the maximum number of requests in progress; further ones get 503 with
	// Retry-After; 0 means 256. Requests wait for a connection of Database.
	MaxInFlight int
	// MaxFollowers is the maximum number of simultaneous connections of /v1/stream; 0 means 5000.
	MaxFollowers int
}

const (
	defaultConns       = 8
	defaultMaxInFlight = 256
	maxMaxInFlight     = 10_000

	defaultMaxFollowers = 5000
	maxMaxFollowers     = 1_000_000
)

// Validate checks the config and fills in defaults.
func (c *Config) Validate() error {
	if c.Database.URL == "" {
		return errors.New("the database URL is missing")
	}
	if err := c.Database.Check(); err != nil {
		return err
	}
	if c.Database.DefaultConns == 0 {
		c.Database.DefaultConns = defaultConns
	}
	if c.Database.Program == "" {
		c.Database.Program = service.API
	}
	if len(c.CursorKeys) == 0 && c.CursorKeysFile == "" {
		return errors.New("keys that sign page tokens are missing")
	}
	switch feeds.Media(c.Media) {
	case "":
		c.Media = string(feeds.MediaCDN)
	case feeds.MediaCDN, feeds.MediaLink, feeds.MediaOff:
	default:
		return fmt.Errorf("media %q is not cdn, link or off", c.Media)
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = defaultMaxInFlight
	}
	if c.MaxInFlight < 1 || c.MaxInFlight > maxMaxInFlight {
		return fmt.Errorf("%d requests in flight are not from 1 to %d", c.MaxInFlight, maxMaxInFlight)
	}
	if c.MaxFollowers == 0 {
		c.MaxFollowers = defaultMaxFollowers
	}
	if c.MaxFollowers < 1 || c.MaxFollowers > maxMaxFollowers {
		return fmt.Errorf("%d followers are not from 1 to %d", c.MaxFollowers, maxMaxFollowers)
	}
	return nil
}
