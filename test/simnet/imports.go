package simnet

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ImportTimes makes the server show a time for posts, as its operator does when moving them from
// another indexer, and returns the server's report when all of them have it. token is that of its
// flag --timestamp-import-token.
func (j *Jetstream) ImportTimes(ctx context.Context, token string, at time.Time, uris ...string) (report string, err error) {
	dir := filepath.Join(j.DataDir(), "imports")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("import times: %w", err)
	}
	rows := "uri,timestamp\n"
	for _, uri := range uris {
		rows += uri + "," + at.UTC().Format(time.RFC3339) + "\n"
	}
	if err := os.WriteFile(filepath.Join(dir, "times.csv"), []byte(rows), 0o644); err != nil {
		return "", fmt.Errorf("import times: %w", err)
	}
	ask := func(verb, method, body string) (string, error) {
		req, err := http.NewRequestWithContext(ctx, verb, j.URL()+"/xrpc/network.bsky.jetstream."+method, strings.NewReader(body))
		if err != nil {
			return "", err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %d: %s", method, res.StatusCode, text)
		}
		return string(text), err
	}
	_, err = ask(http.MethodPost, "importTimestamps", `{"path":"times.csv"}`)
	for err == nil && !strings.Contains(report, `"finishedAt":`) {
		if err = pause(ctx, readyPoll); err == nil {
			report, err = ask(http.MethodGet, "getImportStatus", "")
		}
	}
	if err == nil && !strings.Contains(report, `"state":"complete"`) {
		err = fmt.Errorf("it ended: %s", report)
	}
	if err != nil {
		return "", fmt.Errorf("import times: %w", err)
	}
	return report, nil
}
