package event_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// stored has the checksums of testdata/v<version>: messages as that version of the writer stored
// them, and as streams still contain them. They never change, and no flag rewrites them: a new
// version of the encoding adds a folder and a checksum.
var stored = map[int]string{
	1: "d8292f6e6319d4caa9d005f2e06aa72946687443ea987d0b6bf3073b1d30588b",
	2: "9b43570e93b4825e76cc8803ae177d89c53f34d4a25f0375f852617f5482c61c",
}

// This program reads the messages of every version, with the same meaning.
func TestStoredVersionsAreReadable(t *testing.T) {
	t.Parallel()
	require.Len(t, stored, event.Version, "there must be messages of every version")
	for version := 1; version <= event.Version; version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			files, err := filepath.Glob(fmt.Sprintf("testdata/v%d/*.json", version))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			slices.Sort(files)
			sum := sha256.New()
			for _, file := range files {
				data, err := os.ReadFile(file)
				require.NoError(t, err)
				sum.Write(data)
				require.Contains(t, string(data), fmt.Sprintf(`{"v":%d,`, version))
				ev, err := event.Decode(data)
				require.NoError(t, err, file)
				if want, ok := examples()[nameOf(file)]; ok {
					if _, err := want.Encode(); err != nil { // sets V
						t.Fatal(err)
					}
					ev.V, want.V = 0, 0
					for _, p := range []*event.Position{&want.Source, want.Resume} {
						if p != nil && version == 1 { // stored before there were clocks
							p.Clock, p.Mark = time.Time{}, ""
						}
					}
					require.Equal(t, want, ev, file)
				}
			}
			require.Equal(t, stored[version], hex.EncodeToString(sum.Sum(nil)), "stored messages cannot be changed")
		})
	}
}

func nameOf(file string) string {
	base := filepath.Base(file)
	return base[:len(base)-len(".json")]
}
