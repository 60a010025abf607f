package write_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// A deleted account's author keeps no names, and deleting the account again changes nothing.
func TestErasedAuthor(t *testing.T) {
	t.Parallel()
	for name, said := range map[string]write.Author{
		"nothing":                {},
		"profile":                {DisplayName: "Alice", ProfileRev: "3abcdefghijkl", OptedOut: true},
		"handle":                 {Handle: "alice.example", HandleTime: storetest.Epoch},
		"profile and handle":     {Avatar: "bafy", ProfileRev: "3abcdefghijkl", Handle: "alice.example", HandleTime: storetest.Epoch},
		"profile, and no handle": {DisplayName: "Alice", ProfileRev: "3abcdefghijkl", HandleTime: storetest.Epoch},
	} {
		t.Run(name, func(t *testing.T) {
			erased := said.Erased()
			require.Empty(t, erased.DisplayName+erased.Avatar+erased.Handle)
			require.Equal(t, said.OptedOut, erased.OptedOut)
			require.Equal(t, erased, erased.Newer(said))
			if said.ProfileRev != "" {
				require.Equal(t, said.OptedOut, said.ProfileRev == erased.ProfileRev)
			}
			if !said.HandleTime.IsZero() {
				require.Equal(t, said.HandleTime.Add(time.Microsecond), erased.HandleTime)
			}
			require.Equal(t, erased, erased.Erased())
		})
	}
}
