package cmd

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/services/ingest"
)

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args, environ []string
		code          int
		stderr        string
	}{
		"help":                  {args: []string{"--help"}},
		"help of log":           {args: []string{"log", "--help"}},
		"version":               {args: []string{"--version"}},
		"bad host":              {environ: []string{"TAGSTREAM_JETSTREAM_HOSTS=wss://x"}, code: 2, stderr: "TAGSTREAM_JETSTREAM_HOSTS"},
		"bad start":             {args: []string{"run", "--jetstream-start=soon"}, code: 2, stderr: "TAGSTREAM_JETSTREAM_START"},
		"bad duration":          {environ: []string{"TAGSTREAM_JETSTREAM_STOP_AFTER=x"}, code: 2, stderr: "TAGSTREAM_JETSTREAM_STOP_AFTER"},
		"a size without unit":   {environ: []string{"TAGSTREAM_STREAM_MAX_BYTES=200"}, code: 2, stderr: "TAGSTREAM_STREAM_MAX_BYTES: 200 bytes are less than 10MB"},
		"too short an age":      {environ: []string{"TAGSTREAM_STREAM_MAX_AGE=90s"}, code: 2, stderr: "TAGSTREAM_STREAM_MAX_AGE: 1m30s is less than 1h0m0s"},
		"two copies":            {environ: []string{"TAGSTREAM_STREAM_REPLICAS=2"}, code: 2, stderr: "TAGSTREAM_STREAM_REPLICAS: 2 is not 1, 3 or 5"},
		"bad log level":         {environ: []string{"TAGSTREAM_LOG_LEVEL=loud"}, code: 2, stderr: "TAGSTREAM_LOG_LEVEL"},
		"a misspelt name":       {environ: []string{"TAGSTREAM_JETSTREAM_HOST=a"}, code: 2, stderr: "TAGSTREAM_JETSTREAM_HOST"},
		"bad limit":             {args: []string{"log", "--limit", "0"}, code: 2, stderr: "--limit"},
		"help of backfill":      {args: []string{"backfill", "--help"}},
		"backfill of nothing":   {args: []string{"backfill"}, code: 2, stderr: "--from"},
		"backfill from the tip": {args: []string{"backfill", "--from=tip", "--for=1h"}, code: 2, stderr: "--from"},
		"backfill from a word":  {args: []string{"backfill", "--from=yesterday", "--for=1h"}, code: 2, stderr: "--from: must be an RFC 3339 time"},
		"an empty window":       {args: []string{"backfill", "--from=-3d", "--for=0s"}, code: 2, stderr: "--for"},
		"backfill with a bad host": {
			args: []string{"backfill", "--from=-3d", "--for=1d"}, environ: []string{"TAGSTREAM_JETSTREAM_HOSTS=wss://x"}, code: 2, stderr: "TAGSTREAM_JETSTREAM_HOSTS",
		},
		"help of reconcile":          {args: []string{"reconcile", "--help"}},
		"reconcile with a bad share": {args: []string{"reconcile", "--max-share=half"}, code: 2, stderr: "--max-share"},
		"reconcile with a bad host":  {args: []string{"reconcile", "--host=wss://x"}, code: 2, stderr: "--host"},
		"no such command":            {args: []string{"rum"}, code: 2, stderr: "rum"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			require.Equal(t, tt.code, Program().Run(t.Context(), tt.args, tt.environ, &stdout, &stderr), stderr.String())
			require.Contains(t, stderr.String(), tt.stderr)
			if tt.code == 2 {
				require.Equal(t, 1, bytes.Count(stderr.Bytes(), []byte("\n")), "want one line")
			}
		})
	}
}

func TestLogFormats(t *testing.T) {
	t.Parallel()
	entry := stream.LogEntry{
		At: time.Date(2026, 8, 31, 12, 0, 0, 0, time.UTC), What: "connected", Host: "https://a.example",
		Position: event.Position{Host: "https://a.example", Seq: 42, Time: time.Date(2026, 8, 31, 11, 0, 0, 0, time.UTC)}, Detail: "a <b>\x1b[2J",
	}
	var out bytes.Buffer
	person, pipe := &service.Process{Stdout: &out, Terminal: true}, &service.Process{Stdout: &out}
	table := logTable(person)
	require.NoError(t, logRow(table, entry))
	require.NoError(t, table.Close())
	require.Equal(t, "AT                   WHAT       HOST               SEQ  DETAIL\n"+
		"2026-08-31 12:00:00  connected  https://a.example  42   a <b>.[2J\n", out.String())
	out.Reset()
	require.NoError(t, logRow(logTable(pipe), entry))
	require.JSONEq(t, `{"at":"2026-08-31T12:00:00Z","what":"connected","host":"https://a.example",`+
		`"position":{"host":"https://a.example","seq":42,"time":"2026-08-31T11:00:00Z"},"detail":"a <b>\u001b[2J"}`, out.String())

	// Before all history the time is unknown.
	entry = stream.LogEntry{What: "gap", Position: event.Position{Host: "https://a.example", Time: time.Unix(0, 0).UTC()}}
	out.Reset()
	table = logTable(person)
	require.NoError(t, errors.Join(logRow(table, entry), logRow(table, stream.LogEntry{What: "started"}), table.Close()))
	require.Equal(t, "AT  WHAT     HOST  SEQ  DETAIL\n-   gap            0    \n-   started             \n", out.String())
	out.Reset()
	require.NoError(t, logRow(logTable(pipe), entry))
	require.JSONEq(t, `{"at":null,"what":"gap","position":{"host":"https://a.example","seq":0,"time":null}}`, out.String())
}

func TestBackfillSummaries(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 8, 31, 12, 0, 0, 0, time.UTC)
	s := ingest.BackfillSummary{
		From: at, Until: at.Add(time.Hour), Read: 10,
		First:     event.Position{Host: "https://a.example", Seq: 1, Time: at.Add(time.Minute)},
		Last:      event.Position{Host: "https://a.example", Seq: 9, Time: at.Add(time.Hour - time.Minute)},
		Published: map[event.Kind]uint64{event.KindCreate: 2, event.KindDelete: 1}, Gone: 1, Took: 1.5, Complete: true,
	}
	var out bytes.Buffer
	person, pipe := &service.Process{Stdout: &out, Terminal: true}, &service.Process{Stdout: &out}
	require.NoError(t, printBackfill(person, s))
	require.Equal(t, `window                2026-08-31T12:00:00Z to 2026-08-31T13:00:00Z
covered               2026-08-31T12:01:00Z to 2026-08-31T12:59:00Z, from https://a.example
events read           10
published: create     2
published: delete     1
left out: gone since  1
took                  1.5s
complete              true
`, out.String())
	out.Reset()
	require.NoError(t, printBackfill(pipe, s))
	require.JSONEq(t, `{"from":"2026-08-31T12:00:00Z","until":"2026-08-31T13:00:00Z",
		"first":{"host":"https://a.example","seq":1,"time":"2026-08-31T12:01:00Z"},
		"last":{"host":"https://a.example","seq":9,"time":"2026-08-31T12:59:00Z"},
		"read":10,"published":{"create":2,"delete":1},"gone":1,"dropped":null,"since":null,"tookSeconds":1.5,"complete":true}`, out.String())

	s = ingest.BackfillSummary{From: at, Until: at.Add(time.Hour), HistoryBegins: at.Add(2 * time.Hour), Why: "the window is before the host's history"}
	out.Reset()
	require.NoError(t, printBackfill(person, s))
	require.Contains(t, out.String(), "the host's history begins  2026-08-31T14:00:00Z\n"+
		"complete                   false: the window is before the host's history\n")
	out.Reset()
	require.NoError(t, printBackfill(pipe, s))
	require.JSONEq(t, `{"from":"2026-08-31T12:00:00Z","until":"2026-08-31T13:00:00Z","historyBegins":"2026-08-31T14:00:00Z",
		"read":0,"published":null,"gone":0,"dropped":null,"since":null,"tookSeconds":0,
		"complete":false,"why":"the window is before the host's history"}`, out.String())
}

func TestReconcileSummaries(t *testing.T) {
	t.Parallel()
	s := ingest.ReconcileSummary{Host: "https://a.example", Posts: 200, Accounts: 3, Archived: 2, Deleted: 1, Unqualified: 1, Share: 0.01, Took: 1.5,
		Why: "a dry run publishes nothing"}
	const numbers = `"host":"https://a.example","posts":200,"accounts":3,"archived":2,"unsure":0,"deleted":1,"unqualified":1,"share":0.01,"tookSeconds":1.5`
	var out bytes.Buffer
	person, pipe := &service.Process{Stdout: &out, Terminal: true}, &service.Process{Stdout: &out}
	require.NoError(t, printReconciled(person, s))
	require.Contains(t, out.String(), "removals published       0\ntook                     1.5s\n"+
		"complete                 false: a dry run publishes nothing\n")
	out.Reset()
	require.NoError(t, printReconciled(pipe, s))
	require.JSONEq(t, `{`+numbers+`,"published":0,"complete":false,"why":"a dry run publishes nothing"}`, out.String())

	s.Published, s.Complete, s.Why = 2, true, ""
	out.Reset()
	require.NoError(t, printReconciled(person, s))
	require.Contains(t, out.String(), "complete                 true\n")
	out.Reset()
	require.NoError(t, printReconciled(pipe, s))
	require.JSONEq(t, `{`+numbers+`,"published":2,"complete":true}`, out.String())
}
