package service

import "slices"

// Prefix begins every environment variable of ours.
const Prefix = "TAGSTREAM_"

// The programs, as they name themselves.
const (
	Ingest     = "ingest"
	Indexer    = "indexer"
	API        = "api"
	Standalone = "tagstream"
)

// Setting is one thing that an operator can set.
type Setting struct {
	// Name without the prefix: JETSTREAM_HOSTS.
	Name string
	// Default as it would be written, "" for none.
	Default string
	// Arg names the value in help texts.
	Arg string
	// Usage is a sentence without its full stop.
	Usage string
	// Programs that read it. The others accept and ignore it, so that one
	// environment can serve a whole deployment.
	Programs []string
}

// Settings is every setting of every program, in the order of the docs.
var Settings = []Setting{
	{"JETSTREAM_HOSTS", "https://jetstream.us-east.bsky.network,https://jetstream.us-west.bsky.network", "URL,...",
		"base URLs of Jetstream v2 hosts, the preferred one first", []string{Ingest, Standalone}},
	{"JETSTREAM_START", "tip", "WHERE",
		"where the very first start begins: tip, archive (all history, then live), an RFC 3339 time, a date, or an age such as -2h; later starts resume from the stream", []string{Ingest, Standalone}},
	{"JETSTREAM_STOP_AFTER", "", "DURATION",
		"stop cleanly after this much upstream time, such as 30m; without it ingest runs for ever", []string{Ingest, Standalone}},
	{"JETSTREAM_API_KEY_FILE", "", "FILE",
		"file that holds the API key for archive downloads, where a host wants one", []string{Ingest, Standalone}},
	{"STREAM_MAX_BYTES", "", "SIZE",
		"trim the stream's oldest messages beyond this size, such as 200GiB, no less than 10MB; off lifts the bound; without it a new stream has none, and one that is there stays as it is", []string{Ingest, Standalone}},
	{"STREAM_MAX_AGE", "", "DURATION",
		"trim the stream's messages older than this, such as 720h, no less than 1h; off lifts the bound; without it a new stream has none, and one that is there stays as it is", []string{Ingest, Standalone}},
	{"STREAM_REPLICAS", "1", "N",
		"copies of each stream in a NATS cluster: 1, 3 or 5; more are made where there are fewer, none is taken away", []string{Ingest}},
	{"NATS_URL", "nats://127.0.0.1:4222", "URL,...",
		"NATS servers; bin/tagstream embeds one unless this is set", []string{Ingest, Indexer, Standalone}},
	{"NATS_CREDS_FILE", "", "FILE", "NATS user credentials (JWT and seed)", []string{Ingest, Indexer, Standalone}},
	{"NATS_NKEY_FILE", "", "FILE", "NATS nkey seed", []string{Ingest, Indexer, Standalone}},
	{"NATS_CA_FILE", "", "FILE", "CA certificates that sign the NATS servers' certificates", []string{Ingest, Indexer, Standalone}},
	{"NATS_CERT_FILE", "", "FILE", "certificate that the NATS servers are shown, where they want one; with NATS_KEY_FILE", []string{Ingest, Indexer, Standalone}},
	{"NATS_KEY_FILE", "", "FILE", "private key of NATS_CERT_FILE", []string{Ingest, Indexer, Standalone}},
	{"NATS_TLS_FIRST", "off", "on|off", "begin with TLS before the NATS server says anything, as its handshake_first asks", []string{Ingest, Indexer, Standalone}},
	{"NATS_DOMAIN", "", "NAME", "JetStream domain that the streams are in, where it is not that of the servers in NATS_URL, as behind a leaf node", []string{Ingest, Indexer, Standalone}},
	{"DATABASE_URL", "", "URL",
		"Postgres: a read-write role for the indexer, a read-only one for the api, the owner for migrate and rebuild; several hosts allowed; bin/tagstream starts a private Postgres unless this is set", []string{Indexer, API, Standalone}},
	{"DATABASE_PASSWORD_FILE", "", "FILE", "file that holds the password for DATABASE_URL", []string{Indexer, API, Standalone}},
	{"DATABASE_MAX_CONNS", "", "N",
		"connections to Postgres in each pool of a program; without it the URL's pool_max_conns, and without that 8 for the api and 4 for the indexer", []string{Indexer, API, Standalone}},
	{"INDEXER_MARKER_AGE", "720h", "DURATION",
		"how long it is remembered that a post was removed, by upstream time; no less than 24h", []string{Indexer}},
	{"ERASE_WITHIN", "168h", "DURATION",
		"how long after a post or an account was removed its payloads leave the stream and the dead letters, no less than 24h; 0 or off: never", []string{Indexer, Standalone}},
	{"API_LISTEN", "127.0.0.1:8080", listenArg, "where the API listens", []string{API, Standalone}},
	{"PUBLIC_URL", "", "URL",
		"the absolute URL under which the world sees the api, with its path if it has one; without it feeds name the host that the request named", []string{API, Standalone}},
	{"FEEDS_FILE", "", "FILE",
		"Bluesky feeds to serve, as YAML (docs/api.md); read again when it changes", []string{API, Standalone}},
	{"MEDIA", "cdn", "HOW",
		"pictures in feeds: cdn (from Bluesky's CDN), link (as links to it) or off", []string{API, Standalone}},
	{"OPS_LISTEN", "", listenArg,
		"where /healthz, /readyz, /metrics and pprof listen, not for the public; each program has a port of its own: 9090 tagstream, 9091 ingest, 9092 indexer, 9093 api", []string{Ingest, Indexer, API, Standalone}},
	{"CURSOR_KEYS_FILE", "", "FILE",
		"keys that sign page tokens, the first signs, all verify; bin/tagstream makes one in its data dir", []string{API, Standalone}},
	{"DATA_DIR", "./data", "DIR", "where bin/tagstream keeps its stream, database and keys", []string{Standalone}},
	{"TRACES_URL", "", "URL",
		"OTLP over HTTP: where OpenTelemetry traces go, such as http://collector:4318/v1/traces; without it nothing is traced. Headers and certificates come from OTEL_EXPORTER_OTLP_*", []string{Ingest, Indexer, API, Standalone}},
	{"TRACES_RATIO", "0.001", "SHARE",
		"the share of events and of requests that begin a trace, above 0 and up to 1; what continues one is in it", []string{Ingest, Indexer, API, Standalone}},
	{"LOG_LEVEL", "info", "LEVEL", "debug, info, warn or error", []string{Ingest, Indexer, API, Standalone}},
	{"LOG_FORMAT", "text", "FORMAT", "text or json", []string{Ingest, Indexer, API, Standalone}},
}

// listenArg names the value of a setting that Values.Listen reads.
const listenArg = "HOST:PORT"

var opsDefaults = map[string]string{
	Standalone: "127.0.0.1:9090",
	Ingest:     "127.0.0.1:9091",
	Indexer:    "127.0.0.1:9092",
	API:        "127.0.0.1:9093",
}

// settingsOf returns the settings that a program reads, with its defaults.
func settingsOf(program string) []Setting {
	var out []Setting
	for _, s := range Settings {
		if !slices.Contains(s.Programs, program) {
			continue
		}
		switch {
		case s.Name == "OPS_LISTEN":
			s.Default = opsDefaults[program]
		case s.Name == "NATS_URL" && program == Standalone:
			s.Default = "" // it embeds one
		}
		out = append(out, s)
	}
	return out
}
