package standalone

import (
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/store"
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
	// of the embedded one.
	ConnectNATS func(changed func(error)) (Conn, error)
	// APIListen and OpsListen are host:port.
	APIListen, OpsListen string
	// CursorKeysFile, if set, is used instead of one in DataDir.
	CursorKeysFile string
}

// ConfigFrom reads the configuration from the program's settings. Bad values
// are reported by v.Err.
func ConfigFrom(v *service.Values) Config {
	cfg := Config{
		DataDir: v.Required("DATA_DIR", "a directory to keep everything in"),
		Ingest:  ingest.ConfigFrom(v),
		Database: store.Options{
			URL: v.String("DATABASE_URL"), Password: v.Secret("DATABASE_PASSWORD_FILE"), Program: service.Standalone,
		},
		APIListen:      v.Listen("API_LISTEN"),
		OpsListen:      v.Listen("OPS_LISTEN"),
		CursorKeysFile: v.String("CURSOR_KEYS_FILE"),
	}
	if cfg.Database.URL != "" {
		if err := cfg.Database.Check(); err != nil {
			v.Fail("DATABASE_URL", err)
		}
	}
	return cfg
}
