package e2e_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
	"github.com/tagstream/tagstream/services/ingest"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

const importToken = "a token of tests"

// importTimes makes a real host show a time of 2023 for posts, as an operator does when moving them
// from another indexer.
func (b *ingestBench) importTimes(host *simnet.Jetstream, posts ...simnet.Post) {
	t := b.t
	t.Helper()
	dir := filepath.Join(host.DataDir(), "imports")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	rows := "uri,timestamp\n"
	for _, p := range posts {
		rows += p.URI + ",2023-03-04T05:06:07Z\n"
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "times.csv"), []byte(rows), 0o644))
	ask := func(method, name, body string) (int, string) {
		req, err := http.NewRequestWithContext(b.ctx, method, host.URL()+"/xrpc/network.bsky.jetstream."+name, bytes.NewBufferString(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+importToken)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer func() { _ = res.Body.Close() }()
		answer, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(answer)
	}
	poll.Until(t, ingestWait, func() (bool, string) {
		code, answer := ask(http.MethodPost, "importTimestamps", `{"path":"times.csv"}`)
		return code == http.StatusOK, answer
	})
	poll.Until(t, ingestWait, func() (bool, string) {
		code, answer := ask(http.MethodGet, "getImportStatus", "")
		return code == http.StatusOK && strings.Contains(answer, `"finishedAt":`) && strings.Contains(answer, fmt.Sprintf(`"rowsMutated":%d,`, len(posts))), answer
	})
}

// TestImportedTimesAndFailOver: the second of two hosts shows a day of 2023 for two posts. When the
// first host stops, an edit of one of them and a #sync of the account arrive from the second with
// that time.
func TestImportedTimesAndFailOver(t *testing.T) {
	t.Parallel()
	b := newIngestBench(t, 1)
	first, second := b.host(), b.host("--timestamp-import-token", importToken)
	x, url := b.newIndex()
	x.indexer(100)
	b.ingest(ingest.Config{Hosts: []string{first.URL(), second.URL()}, Start: "archive"})
	edited, kept := b.post("edited", "art"), b.post("kept", "art")
	for _, p := range []simnet.Post{edited, kept} {
		awaitPost(t, url, p)
	}
	require.NoError(t, b.net.Await(b.ctx, second))
	b.importTimes(second, edited, kept)

	before := readFreshness(t, url).IndexedThrough
	require.NoError(t, first.Stop())
	b.update(edited, "an edit", "photo")
	_, err := b.net.Sync(edited.DID)
	require.NoError(t, err)
	after := b.post("after", "art")
	awaitPost(t, url, after)
	require.NoError(t, b.net.Await(b.ctx, second))

	shown, _ := page(t, url+"/v1/posts?tags=art&tags=photo")
	require.ElementsMatch(t, []string{edited.URI, kept.URI, after.URI}, shown)
	_, body := process.Fetch(fmt.Sprintf("%s/v1/posts/%s/%s", url, edited.DID, edited.Rkey))
	require.Contains(t, body, "an edit")
	require.True(t, readFreshness(t, url).IndexedThrough.After(*before), "the index must not go back")

	// Even if the time of the last event read changes, it is still the same event.
	require.True(t, slices.ContainsFunc(b.log(), func(e stream.LogEntry) bool { return e.What == "switched" && e.Host == second.URL() }))
	require.False(t, slices.ContainsFunc(b.log(), func(e stream.LogEntry) bool { return e.What == "gap" }))
}
