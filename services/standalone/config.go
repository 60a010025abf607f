package standalone

import (
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tagstream/tagstream/pkg/keyset"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/service/dbsettings"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/tracing"
	"github.com/tagstream/tagstream/services/indexer"
	"github.com/tagstream/tagstream/services/ingest"
)

// Config is an operator's configuration of the all-in-one program.
type Config struct {
	// DataDir holds the stream, the database and the cursor keys.
	DataDir string
	// Ingest is ingest's configuration.
	Ingest ingest.Config
	// Database, if its URL is set, replaces the private Postgres for every part.
	Database store.Options
	// ConnectNATS, if not nil, connects to a NATS server that replaces the embedded one. changed
	// receives the connection's condition.
	ConnectNATS func(logger *slog.Logger, changed func(error)) (*nats.Conn, error)
	// NATSDomain is the JetStream domain on that server.
	NATSDomain string
	// ChangesAge, EraseWithin, ShowOptedOut and DenyFile are those of indexer.Config.
	ChangesAge, EraseWithin time.Duration
	ShowOptedOut            bool
	DenyFile                string
	// APIListen and OpsListen are host:port.
	APIListen, OpsListen string
	// PublicURL, FeedsFile, Media and MaxFollowers are those of api.Config.
	PublicURL, FeedsFile, Media string
	MaxFollowers                int
	// Tracing says whether and how to trace.
	Tracing tracing.Config
	// CursorKeys sign page tokens; without any, a file of them is created in DataDir.
	CursorKeys []keyset.Key
}

// Settings are the settings of the all-in-one program, except its data directory.
type Settings struct {
	service.Jetstream
	service.Window
	service.Retention
	Profiles     service.Profiles `embed:""`
	NATS         service.NATS     `embed:""`
	Database     service.Database `embed:""`
	Changes      service.Changes  `embed:""`
	Consent      service.Consent  `embed:""`
	Erasure      service.Erasure  `embed:""`
	service.HTTP `embed:""`
	Feeds        service.Feeds `embed:""`
	service.Observability
}

// Config converts the settings to a configuration with this data directory. The error is a
// *service.ConfigError.
func (s Settings) Config(dir string) (Config, error) {
	cfg := Config{
		DataDir: dir, ChangesAge: s.Changes.Age, EraseWithin: s.Erasure.Within, ShowOptedOut: s.Consent.ShowOptedOut(),
		DenyFile: s.Consent.DenyFile, APIListen: s.HTTP.Listen, OpsListen: s.Ops.Listen,
		PublicURL: s.Feeds.PublicURL, FeedsFile: s.Feeds.FeedsFile, Media: s.Media, MaxFollowers: s.Followers, NATSDomain: s.NATS.Domain,
	}
	p := &service.Process{Program: service.Standalone}
	var err error
	if cfg.Ingest, err = ingest.ConfigFrom(s.Jetstream, s.Window, s.Retention); err != nil {
		return cfg, err
	}
	cfg.Ingest.ProfilesURL = s.Profiles.URL
	if s.Database.URL != "" {
		if cfg.Database, err = dbsettings.Options(p, s.Database, dbsettings.Owner); err != nil {
			return cfg, err
		}
	}
	if err = indexer.CheckChanges(s.Changes); err != nil {
		return cfg, err
	}
	if err = indexer.CheckErasure(s.Erasure); err != nil {
		return cfg, err
	}
	if cfg.Tracing, err = s.Traces.Config(service.Standalone); err != nil {
		return cfg, err
	}
	if s.KeysFile != "" {
		if cfg.CursorKeys, err = keyset.LoadKeys(s.KeysFile); err != nil {
			return cfg, service.Bad("CURSOR_KEYS_FILE", err)
		}
	}
	if s.NATS.URL != "" {
		cfg.ConnectNATS = func(logger *slog.Logger, changed func(error)) (*nats.Conn, error) {
			return s.NATS.Connect(p, logger, changed)
		}
	}
	return cfg, nil
}
