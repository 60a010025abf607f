package cmd

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/service"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

// execute runs the program with these arguments.
func execute(t *testing.T, environ []string, args ...string) (code int, answer, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Program().Run(t.Context(), args, environ, &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	database := []string{"TAGSTREAM_DATABASE_URL=postgres://nobody@127.0.0.1:1/none"}
	for name, tt := range map[string]struct {
		args    string
		environ []string
		code    int
		want    string // in the answer, or the only line of an error
	}{
		"help":              {"--help", nil, 0, "dlq redrive"},
		"help of list":      {"dlq list --help", nil, 0, "Usage: indexer dlq list"},
		"help of dlq":       {"dlq --help", nil, 0, "dlq redrive"},
		"help of redrive":   {"dlq redrive --help", nil, 0, "Usage: indexer dlq redrive [<seq> ...]"},
		"help of verify":    {"verify --help", nil, 0, "--alone"},
		"version":           {"--version", nil, 0, "indexer"},
		"no such command":   {"dlq lost", nil, 2, `unknown command "dlq lost"`},
		"operand of list":   {"dlq list 5", nil, 2, "unexpected argument 5"},
		"limit of list":     {"dlq list --limit 0", nil, 2, `--limit: "0" is not a whole number`},
		"show nothing":      {"dlq show", nil, 2, `expected "<seq>"`},
		"show two":          {"dlq show 1 2", nil, 2, "unexpected argument 2"},
		"show a word":       {"dlq show first", nil, 2, `"first" is not the number of a message`},
		"show none":         {"dlq show 0", nil, 2, `"0" is not the number of a message`},
		"redrive what":      {"dlq redrive", database, 2, "say which"},
		"redrive too much":  {"dlq redrive 5 --all", database, 2, "not both"},
		"redrive all, some": {"dlq redrive --all --reason invalid", database, 2, "not both"},
		"misspelt reason":   {"dlq redrive --reason unknown_versions", database, 2, `--reason: "unknown_versions" is not unknown_version, invalid or rejected`},
		"list no reason":    {"dlq list --reason dead", nil, 2, `--reason: "dead" is not`},
		"number after flag": {"dlq redrive --all 5", database, 2, "not both"},
		"redrive where":     {"dlq redrive 5", nil, 2, "TAGSTREAM_DATABASE_URL"},
		"drop what":         {"dlq drop", database, 2, `expected "<seq> ..."`},
		"verify where":      {"verify", nil, 2, "TAGSTREAM_DATABASE_URL"},
		"migrate as whom":   {"migrate", nil, 2, "tagstream_owner@"},
		"rebuild as whom":   {"rebuild", nil, 2, "tagstream_owner@"},
		"verify with both":  {"verify --alone --other x", database, 2, "--alone"},
		"verify itself":     {"verify --other tagstream", database, 2, "is the same schema"},
		"database away":     {"verify", database, 1, "connect"},
		"short marker age":  {"run --indexer-marker-age 1h", database, 2, "TAGSTREAM_INDEXER_MARKER_AGE: 1h0m0s is less than 24h0m0s"},
		"marker age":        {"run --indexer-marker-age month", database, 2, "TAGSTREAM_INDEXER_MARKER_AGE"},
		"short erasing":     {"run --erase-within 1h", database, 2, "TAGSTREAM_ERASE_WITHIN: 1h0m0s is less than 24h0m0s"},
		"erasing":           {"run --erase-within never", database, 2, "TAGSTREAM_ERASE_WITHIN"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, answer, stderr := execute(t, tt.environ, strings.Fields(tt.args)...)
			require.Equal(t, tt.code, code, stderr)
			require.Contains(t, answer+stderr, tt.want)
			if tt.code == 2 {
				require.Equal(t, 1, strings.Count(stderr, "\n"), "want one line: %s", stderr)
			}
		})
	}
}

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestCommands runs operators' commands on real servers.
func TestCommands(t *testing.T) {
	t.Parallel()
	server := natstest.Server(t, natstest.Listen())
	js := server.JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	environ := []string{"TAGSTREAM_NATS_URL=" + server.URL(), "TAGSTREAM_DATABASE_URL=" + pgtest.Database(t).URL, "TAGSTREAM_LOG_LEVEL=error"}
	command := func(wantCode int, wantAnswer string, args ...string) {
		t.Helper()
		code, answer, stderr := execute(t, environ, args...)
		require.Equal(t, wantCode, code, stderr)
		require.Equal(t, wantAnswer, answer)
	}
	command(0, "", "migrate")
	command(0, `{"checked":"tagstream was checked alone","findings":0}`+"\n", "verify")
	command(1, "", "verify", "--other", "tagstream_retired")
	command(0, "", "dlq", "redrive", "--all")

	_, err := js.Publish(t.Context(), "posts.test", []byte("{}"))
	require.NoError(t, err)
	require.NoError(t, stream.PutDeadLetter(t.Context(), js, stream.DeadLetter{Seq: 1, Payload: []byte("{}")}))
	command(1, `{"seq":1,"applied":false,"error":"invalid event:  event: bad v"}`+"\n"+
		`{"seq":5,"applied":false,"error":"there is no such dead letter: 5"}`+"\n", "dlq", "redrive", "1", "5")
	command(1, `{"removed":0}`+"\n", "dlq", "drop", "5", "1")
	command(0, `{"removed":1}`+"\n", "dlq", "drop", "1")
	command(0, "", "dlq", "redrive", "--reason", "invalid")
}

func letter(seq uint64, payload string) stream.DeadLetter {
	return stream.DeadLetter{
		Seq: seq, Reason: "invalid", Error: "invalid event: bad <rev>\x1b[2J", At: time.Date(2026, 8, 31, 12, 0, 0, 0, time.UTC), Payload: []byte(payload),
	}
}

func TestListAndShow(t *testing.T) {
	t.Parallel()
	server := natstest.Server(t, natstest.Listen())
	js := server.JetStream(t)
	require.NoError(t, stream.Ensure(t.Context(), js, stream.Config{}))
	environ := []string{"TAGSTREAM_NATS_URL=" + server.URL(), "TAGSTREAM_LOG_LEVEL=error"}
	code, answer, notes := execute(t, environ, "dlq")
	require.Zero(t, code)
	require.Empty(t, answer)
	require.Equal(t, "no dead letters\n", notes)

	for _, d := range []stream.DeadLetter{letter(9, `{"v":1,"text":"<b>"}`), letter(7, "\x00"), letter(8, "")} {
		require.NoError(t, stream.PutDeadLetter(t.Context(), js, d))
	}
	const common = `"at":"2026-08-31T12:00:00Z","reason":"invalid","error":"invalid event: bad <rev> [2J"`
	code, answer, _ = execute(t, environ, "dlq", "list", "--limit", "2")
	require.Zero(t, code)
	require.Equal(t, `{"seq":9,`+common+`,"bytes":20}`+"\n"+`{"seq":8,`+common+`,"bytes":0}`+"\n", answer)
	code, answer, _ = execute(t, environ, "dlq", "list", "--reason", "rejected")
	require.Zero(t, code)
	require.Empty(t, answer)
	code, answer, _ = execute(t, environ, "dlq", "show", "9")
	require.Zero(t, code)
	require.Equal(t, `{"seq":9,`+common+`,"bytes":20,"payload":{"v":1,"text":"<b>"}}`+"\n", answer)
	code, answer, _ = execute(t, environ, "dlq", "show", "7")
	require.Zero(t, code)
	require.Equal(t, `{"seq":7,`+common+`,"bytes":1,"payload":"\u0000"}`+"\n", answer)
	code, _, stderr := execute(t, environ, "dlq", "show", "6")
	require.Equal(t, 1, code)
	require.Equal(t, "indexer: there is no such dead letter: 6\n", stderr)
}

func TestFormats(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &service.Process{Stdout: &out, Terminal: true}
	table := letterTable(p)
	require.NoError(t, letterRow(table, letter(9, "12")))
	require.NoError(t, table.Close())
	require.Equal(t, "SEQ  AT                   REASON   BYTES  ERROR\n"+
		"9    2026-08-31 12:00:00  invalid  2      invalid event: bad <rev>.[2J\n", out.String())
	for payload, want := range map[string]string{
		`{"a":"` + "\x7f" + `"}`: "{\n  \"a\": \".\"\n}\n",
		"\x1b[2J":                `"\x1b[2J"` + "\n",
		"":                       "(the message was too big to be copied)\n",
	} {
		out.Reset()
		require.NoError(t, showLetter(p, letter(9, payload)))
		head, body, _ := strings.Cut(out.String(), "\n\n")
		require.Equal(t, want, body)
		require.Contains(t, head, "seq     9\nat      2026-08-31T12:00:00Z\nreason  invalid\nerror   invalid event: bad <rev>.[2J\nbytes   ")
	}
}
