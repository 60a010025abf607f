package write_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
)

// Tags are stored unchanged, even with characters that array literals escape.
func TestTagsAreStoredUnchanged(t *testing.T) {
	t.Parallel()
	o := storetest.Database(t)
	want := []string{"art", "NULL", "null", "{}", "{", "}", ",", `a"b`, `a\b`, `\"`, `\\`, "a b", " ", "'", "\t\n", "日本", "🎨", "$1"}
	storetest.SeedPosts(t, storetest.Leader(t, o), storetest.Seed{Posts: 1, Second: func(i int) int { return i }, Tags: func(int) []string { return want }})
	var got []string
	require.NoError(t, pgtest.Pool(t, o.URL).QueryRow(t.Context(), "SELECT tags FROM tagstream.posts").Scan(&got))
	require.Equal(t, want, got)
}
