package decode

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluesky-social/jetstream"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden decodes recorded events and compares the results with the golden
// files. testdata/simulated.jsonl was recorded from the real Jetstream server
// on the simulated network; `make capture` adds one from the public network.
//
// Invariant: the decoder's results for recorded events of the real server do not change.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.jsonl")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			var got bytes.Buffer
			decoder := Decoder{MaxPayload: 1 << 20}
			lines := bufio.NewScanner(bytes.NewReader(data))
			lines.Buffer(nil, 4<<20)
			for lines.Scan() {
				var ev jetstream.Event
				require.NoError(t, json.Unmarshal(lines.Bytes(), &ev))
				res := decoder.Decode(&ev, at(&ev))
				if res.Event == nil {
					got.WriteString("dropped: " + string(res.Drop) + "\n")
					continue
				}
				line, err := res.Event.Encode()
				require.NoError(t, err)
				got.Write(append(line, '\n'))
			}
			require.NoError(t, lines.Err())
			golden := strings.TrimSuffix(file, ".jsonl") + ".golden"
			if *update {
				require.NoError(t, os.WriteFile(golden, got.Bytes(), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), got.String())
		})
	}
}
