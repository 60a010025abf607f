package standalone

import (
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

// Config is what an operator chooses about the all-in-one program.
type Config struct {
	// DataDir holds the stream, the database and the cursor keys.
	DataDir string
	// Ingest is ingest's configuration.
	Ingest ingest.Config
	// Database, if its URL is set, is used instead of a private Postgres, by
	// every part.
	Database store.Options
	// ConnectNATS, if not nil, connects to a NATS server that is used instead
	// of the embedded one. changed hears of the connection's condition.
	ConnectNATS func(changed func(error)) (*nats.Conn, error)
	// NATSDomain is the JetStream domain there.
	NATSDomain string
	// EraseWithin is as the indexer's.
	EraseWithin time.Duration
	// APIListen and OpsListen are host:port.
	APIListen, OpsListen string
	// PublicURL, FeedsFile and Media are as the api's.
	PublicURL, FeedsFile, Media string
	// Tracing says whether and how to trace.
	Tracing tracing.Config
	// CursorKeys sign page tokens; without any, a file of them is kept in DataDir.
	CursorKeys []keyset.Key
}

// ConfigFrom reads the configuration from the program's settings. Bad values
// are reported by v.Err.
func ConfigFrom(v *service.Values) Config {
	cfg := Config{
		DataDir:     v.Required("DATA_DIR", "a directory to keep everything in"),
		Ingest:      ingest.ConfigFrom(v),
		Database:    dbsettings.Options(v, service.Standalone),
		EraseWithin: indexer.EraseWithinFrom(v),
		APIListen:   v.Listen("API_LISTEN"),
		OpsListen:   v.Listen("OPS_LISTEN"),
		PublicURL:   v.BaseURL("PUBLIC_URL"),
		FeedsFile:   v.String("FEEDS_FILE"),
		Media:       v.Choice("MEDIA", "cdn", "link", "off"),
		Tracing:     tracing.ConfigFrom(v, service.Standalone),
	}
	if file := v.String("CURSOR_KEYS_FILE"); file != "" {
		var err error
		if cfg.CursorKeys, err = keyset.LoadKeys(file); err != nil {
			v.Fail("CURSOR_KEYS_FILE", err)
		}
	}
	return cfg
}
