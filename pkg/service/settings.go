package service

import "time"

// Prefix begins every environment variable of ours.
const Prefix = "TAGSTREAM_"

// The programs, as they name themselves.
const (
	Ingest     = "ingest"
	Indexer    = "indexer"
	API        = "api"
	Standalone = "tagstream"
)

// Every setting of every program, in groups by what they are about. A verb has
// the groups that it uses as fields. A name is the flag's; the variable's is
// the same in capitals behind Prefix. A type names the parser (parsers); an
// empty value is the default.

// Jetstream is where the firehose comes from.
type Jetstream struct {
	Hosts      []string `name:"jetstream-hosts" type:"list" placeholder:"URL,..." default:"https://jetstream.us-east.bsky.network,https://jetstream.us-west.bsky.network" help:"base URLs of Jetstream v2 hosts, the preferred one first"`
	APIKeyFile string   `name:"jetstream-api-key-file" placeholder:"FILE" help:"file that holds the API key for archive downloads, where a host wants one"`
}

// Window is what ingest reads of the firehose.
type Window struct {
	Start     string        `name:"jetstream-start" placeholder:"WHERE" default:"tip" help:"where the very first start begins: tip, archive (all history, then live), an RFC 3339 time, a date, or an age such as -2h; later starts resume from the stream"`
	StopAfter time.Duration `name:"jetstream-stop-after" type:"duration" placeholder:"DURATION" help:"stop cleanly after this much upstream time, such as 30m; without it ingest runs for ever"`
}

// Retention is how much the stream keeps. Off means that it is not trimmed.
type Retention struct {
	MaxBytes int64         `name:"stream-max-bytes" type:"size" placeholder:"SIZE" help:"trim the stream's oldest messages beyond this size, such as 200GiB, no less than 10MB; off lifts the bound; without it a new stream has none, and one that is there stays as it is"`
	MaxAge   time.Duration `name:"stream-max-age" type:"age" placeholder:"DURATION" help:"trim the stream's messages older than this, such as 720h, no less than 1h; off lifts the bound; without it a new stream has none, and one that is there stays as it is"`
}

// Copies is how often a NATS cluster stores the streams.
type Copies struct {
	Replicas int `name:"stream-replicas" type:"count" placeholder:"N" default:"1" help:"copies of each stream in a NATS cluster: 1, 3 or 5; more are made where there are fewer, none is taken away"`
}

// NATS is where the streams are.
type NATS struct {
	URL       string `name:"nats-url" placeholder:"URL,..." default:"${nats_url}" help:"NATS servers; bin/tagstream embeds one unless this is set"`
	CredsFile string `name:"nats-creds-file" type:"file" placeholder:"FILE" help:"NATS user credentials (JWT and seed)"`
	NkeyFile  string `name:"nats-nkey-file" type:"file" placeholder:"FILE" help:"NATS nkey seed"`
	CAFile    string `name:"nats-ca-file" type:"file" placeholder:"FILE" help:"CA certificates that sign the NATS servers' certificates"`
	CertFile  string `name:"nats-cert-file" type:"file" placeholder:"FILE" help:"certificate that the NATS servers are shown, where they want one; with NATS_KEY_FILE"`
	KeyFile   string `name:"nats-key-file" type:"file" placeholder:"FILE" help:"private key of NATS_CERT_FILE"`
	TLSFirst  string `name:"nats-tls-first" type:"choice" enum:"on,off" placeholder:"on|off" default:"off" help:"begin with TLS before the NATS server says anything, as its handshake_first asks"`
	Domain    string `name:"nats-domain" placeholder:"NAME" help:"JetStream domain that the streams are in, where it is not that of the servers in NATS_URL, as behind a leaf node"`
}

// Database is where the index is.
type Database struct {
	URL      string `name:"database-url" placeholder:"URL" help:"Postgres: a read-write role for the indexer, a read-only one for the api, the owner for migrate and rebuild; several hosts allowed; bin/tagstream starts a private Postgres unless this is set"`
	Password string `name:"database-password-file" type:"secret" placeholder:"FILE" help:"file that holds the password for DATABASE_URL"`
	MaxConns int    `name:"database-max-conns" type:"count" placeholder:"N" help:"connections to Postgres in each pool of a program; without it the URL's pool_max_conns, and without that 8 for the api and 4 for the indexer"`
}

// Markers is how long the indexer remembers removals.
type Markers struct {
	Age time.Duration `name:"indexer-marker-age" type:"duration" placeholder:"DURATION" default:"720h" help:"how long it is remembered that a post was removed, by upstream time; no less than 24h"`
}

// Erasure is when payloads of what was removed leave the stream. Off means never.
type Erasure struct {
	Within time.Duration `name:"erase-within" type:"age" placeholder:"DURATION" default:"168h" help:"how long after a post or an account was removed its payloads leave the stream and the dead letters, no less than 24h; 0 or off: never"`
}

// HTTP is what the API serves, and where.
type HTTP struct {
	Listen    string `name:"api-listen" type:"listen" placeholder:"HOST:PORT" default:"127.0.0.1:8080" help:"where the API listens"`
	PublicURL string `name:"public-url" type:"base-url" placeholder:"URL" help:"the absolute URL under which the world sees the api, with its path if it has one; without it feeds name the host that the request named"`
	FeedsFile string `name:"feeds-file" placeholder:"FILE" help:"Bluesky feeds to serve, as YAML (docs/api.md); read again when it changes"`
	Media     string `name:"media" type:"choice" enum:"cdn,link,off" placeholder:"HOW" default:"cdn" help:"pictures in feeds: cdn (from Bluesky's CDN), link (as links to it) or off"`
	KeysFile  string `name:"cursor-keys-file" placeholder:"FILE" help:"keys that sign page tokens, the first signs, all verify; bin/tagstream makes one in its data dir"`
}

// Ops is where a program shows itself to its operators.
type Ops struct {
	Listen string `name:"ops-listen" type:"listen" placeholder:"HOST:PORT" default:"${ops_listen}" help:"where /healthz, /readyz, /metrics and pprof listen, not for the public; each program has a port of its own: 9090 tagstream, 9091 ingest, 9092 indexer, 9093 api"`
}

// Data is where the all-in-one program keeps everything.
type Data struct {
	Dir string `name:"data-dir" placeholder:"DIR" default:"./data" help:"where bin/tagstream keeps its stream, database and keys"`
}

// Traces is where traces go.
type Traces struct {
	URL   string  `name:"traces-url" placeholder:"URL" help:"OTLP over HTTP: where OpenTelemetry traces go, such as http://collector:4318/v1/traces; without it nothing is traced. Headers and certificates come from OTEL_EXPORTER_OTLP_*"`
	Ratio float64 `name:"traces-ratio" type:"share" placeholder:"SHARE" default:"0.001" help:"the share of events and of requests that begin a trace, above 0 and up to 1; what continues one is in it"`
}

// Log is what is logged, and how.
type Log struct {
	Level  string `name:"log-level" type:"choice" enum:"debug,info,warn,error" placeholder:"LEVEL" default:"info" help:"debug, info, warn or error"`
	Format string `name:"log-format" type:"choice" enum:"text,json" placeholder:"FORMAT" default:"text" help:"text or json"`
}

// settings is all of them, in the order of the docs.
type settings struct {
	Jetstream
	Window
	Retention
	Copies
	NATS
	Database
	Markers
	Erasure
	HTTP
	Ops
	Data
	Traces
	Log
}

// defaults are those that differ between the programs: the all-in-one program
// embeds a NATS server.
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
