package service

import "time"

// Prefix starts the name of every environment variable.
const Prefix = "TAGSTREAM_"

// The names of the programs.
const (
	Ingest     = "ingest"
	Indexer    = "indexer"
	API        = "api"
	Standalone = "tagstream"
)

// Every setting of every program, grouped by topic. A verb has the groups that it uses as fields.
// The name tag is the flag's name; the variable is Prefix and the same name in capitals. The type
// tag names the parser (parsers); an empty value means the default.

// Jetstream says where the firehose is.
type Jetstream struct {
	Hosts      []string `name:"jetstream-hosts" type:"list" placeholder:"URL,..." default:"https://jetstream.us-east.bsky.network,https://jetstream.us-west.bsky.network" help:"base URLs of Jetstream v2 hosts, preferred first"`
	APIKeyFile string   `name:"jetstream-api-key-file" placeholder:"FILE" help:"file with the API key for archive downloads, if a host requires one"`
}

// Window says which part of the firehose ingest reads.
type Window struct {
	Start     string        `name:"jetstream-start" placeholder:"WHERE" default:"tip" help:"where the first start begins: tip, archive (all history, then live), an RFC 3339 time, a date, or an age such as -2h; later starts resume"`
	StopAfter time.Duration `name:"jetstream-stop-after" type:"duration" placeholder:"DURATION" help:"stop cleanly after this much upstream time, such as 30m"`
}

// Profiles says where ingest looks up authors; "" means nowhere.
type Profiles struct {
	URL string `name:"profiles-url" type:"server-or-off" placeholder:"URL" default:"https://public.api.bsky.app" help:"AppView for looking up authors' names and consent; off disables that"`
}

// Retention says how much the stream keeps. Off means that it is not trimmed.
type Retention struct {
	MaxBytes int64         `name:"stream-max-bytes" type:"size" placeholder:"SIZE" help:"trim the stream beyond this size, such as 200GiB (at least 10MB); off removes an existing limit, unset keeps it"`
	MaxAge   time.Duration `name:"stream-max-age" type:"age" placeholder:"DURATION" help:"trim messages older than this, such as 720h (at least 1h); off removes an existing limit, unset keeps it"`
}

// Copies says how many copies of the streams a NATS cluster stores.
type Copies struct {
	Replicas int `name:"stream-replicas" type:"count" placeholder:"N" default:"1" help:"copies of each stream in a NATS cluster: 1, 3 or 5; only ever increased"`
}

// NATS says where the streams are.
type NATS struct {
	URL       string `name:"nats-url" placeholder:"URL,..." default:"${nats_url}" help:"NATS servers; unset, bin/tagstream embeds one"`
	CredsFile string `name:"nats-creds-file" type:"file" placeholder:"FILE" help:"NATS user credentials (JWT and seed)"`
	NkeyFile  string `name:"nats-nkey-file" type:"file" placeholder:"FILE" help:"NATS nkey seed"`
	CAFile    string `name:"nats-ca-file" type:"file" placeholder:"FILE" help:"CA certificates for the NATS servers"`
	CertFile  string `name:"nats-cert-file" type:"file" placeholder:"FILE" help:"client certificate for NATS; with NATS_KEY_FILE"`
	KeyFile   string `name:"nats-key-file" type:"file" placeholder:"FILE" help:"private key of NATS_CERT_FILE"`
	TLSFirst  string `name:"nats-tls-first" type:"choice" enum:"on,off" placeholder:"on|off" default:"off" help:"start TLS first, for NATS servers with handshake_first"`
	Domain    string `name:"nats-domain" placeholder:"NAME" help:"JetStream domain of the streams, if not that of NATS_URL, such as behind a leaf node"`
}

// Database says where the index is.
type Database struct {
	URL      string `name:"database-url" placeholder:"URL" help:"Postgres: a read-write role for the indexer, a read-only one for the api, the owner for migrate and rebuild; several hosts allowed; unset, bin/tagstream starts a private Postgres"`
	Password string `name:"database-password-file" type:"secret" placeholder:"FILE" help:"file with the password for DATABASE_URL"`
	MaxConns int    `name:"database-max-conns" type:"count" placeholder:"N" help:"connections per pool; default: the URL's pool_max_conns, else 8 for the api and 4 for the indexer"`
}

// Markers says how long the indexer keeps removal markers.
type Markers struct {
	Age time.Duration `name:"indexer-marker-age" type:"duration" placeholder:"DURATION" default:"720h" help:"how long removal markers are kept, in upstream time; at least 24h"`
}

// Changes says how far back the change feed reaches.
type Changes struct {
	Age time.Duration `name:"changes-age" type:"duration" placeholder:"DURATION" default:"168h" help:"how far back /v1/changes reaches; followers that are away for longer list everything again; at least 1h"`
}

// Consent says whether opted-out authors are hidden, and what the operator never shows.
type Consent struct {
	Consent  string `name:"consent" type:"choice" enum:"respect,ignore" placeholder:"HOW" default:"respect" help:"accounts with the self-label !no-unauthenticated: respect (hide) or ignore (show)"`
	DenyFile string `name:"deny-file" placeholder:"FILE" help:"accounts and tags never to be shown, as YAML (docs/operations.md); reloaded on change"`
}

// ShowOptedOut reports whether opted-out authors are shown anyway.
func (c Consent) ShowOptedOut() bool { return c.Consent == "ignore" }

// Erasure says when payloads of removed posts leave the stream. Off means never.
type Erasure struct {
	Within time.Duration `name:"erase-within" type:"age" placeholder:"DURATION" default:"168h" help:"when payloads of removed posts and accounts leave the stream and the dead letters; at least 24h; 0 or off: never"`
}

// HTTP says what the API serves, and where.
type HTTP struct {
	Listen    string `name:"api-listen" type:"listen" placeholder:"HOST:PORT" default:"127.0.0.1:8080" help:"address of the API"`
	Media     string `name:"media" type:"choice" enum:"cdn,link,off" placeholder:"HOW" default:"cdn" help:"pictures in feeds and pages: cdn (Bluesky's CDN), link (links to it) or off"`
	Followers int    `name:"followers" type:"count" placeholder:"N" default:"5000" help:"most simultaneous connections of /v1/stream; further ones get 503"`
	KeysFile  string `name:"cursor-keys-file" placeholder:"FILE" help:"file with the keys for page tokens: the first signs, all verify; bin/tagstream creates one in its data directory"`
}

// Feeds has the settings of Bluesky feeds.
type Feeds struct {
	PublicURL string `name:"public-url" type:"base-url" placeholder:"URL" help:"public absolute URL of the API, with its path if any; default in feeds: the request's host"`
	FeedsFile string `name:"feeds-file" placeholder:"FILE" help:"Bluesky feeds to serve, as YAML (docs/api.md); reloaded on change"`
}

// Ops says where a program's private listener is.
type Ops struct {
	Listen string `name:"ops-listen" type:"listen" placeholder:"HOST:PORT" default:"${ops_listen}" help:"private address of /healthz, /readyz, /metrics and pprof; default port: 9090 tagstream, 9091 ingest, 9092 indexer, 9093 api"`
}

// Data says where the all-in-one program keeps everything.
type Data struct {
	Dir string `name:"data-dir" placeholder:"DIR" default:"./data" help:"directory for stream, database and keys"`
}

// Traces says where traces are sent.
type Traces struct {
	URL   string  `name:"traces-url" placeholder:"URL" help:"OpenTelemetry collector (OTLP over HTTP), such as http://collector:4318/v1/traces; headers and certificates come from OTEL_EXPORTER_OTLP_*"`
	Ratio float64 `name:"traces-ratio" type:"share" placeholder:"SHARE" default:"0.001" help:"share of events and requests that start a trace, above 0, up to 1"`
}

// Log says what is logged, and how.
type Log struct {
	Level  string `name:"log-level" type:"choice" enum:"debug,info,warn,error" placeholder:"LEVEL" default:"info" help:"debug, info, warn or error"`
	Format string `name:"log-format" type:"choice" enum:"text,json" placeholder:"FORMAT" default:"text" help:"text or json"`
}

// settings are all settings, in the order of the docs.
type settings struct {
	Jetstream
	Window
	Profiles
	Retention
	Copies
	NATS
	Database
	Markers
	Erasure
	Changes
	Consent
	HTTP
	Feeds
	Ops
	Data
	Traces
	Log
}

// defaults returns those that differ between programs: the all-in-one program embeds a NATS server.
func defaults(program string) map[string]string {
	vars := map[string]string{"nats_url": "nats://127.0.0.1:4222", "ops_listen": ""}
	switch program {
	case Standalone:
		vars["nats_url"], vars["ops_listen"] = "", "127.0.0.1:9090"
	case Ingest:
		vars["ops_listen"] = "127.0.0.1:9091"
	case Indexer:
		vars["ops_listen"] = "127.0.0.1:9092"
	case API:
		vars["ops_listen"] = "127.0.0.1:9093"
	}
	return vars
}
