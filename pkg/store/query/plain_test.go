package query

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
)

// TestPlain: a query with any filter other than tags and a time window is not plain. The test
// covers fields that are added to PostQuery.
func TestPlain(t *testing.T) {
	t.Parallel()
	_, plain := PostQuery{None: []string{"art"}}.plain()
	require.False(t, plain, "no tags")
	one, plain := PostQuery{All: []string{"art"}, None: []string{}}.plain()
	require.True(t, plain)
	require.Equal(t, []string{"art"}, one.Tags)

	fields := reflect.TypeFor[PostQuery]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		q := PostQuery{Tags: []string{"art"}}
		field := reflect.ValueOf(&q).Elem().Field(i)
		switch v := field.Addr().Interface().(type) {
		case *[]string:
			*v = []string{"x"}
		case *bool:
			*v = true
		case *time.Time:
			*v = time.Unix(1, 0)
		case *keyset.Position:
			v.Side = keyset.SideEnd
		default:
			field.Set(reflect.ValueOf(1).Convert(field.Type()))
		}
		_, plain := q.plain()
		switch name {
		case "Tags", "Since", "Until", "From", "Direction", "Limit", "NamesOnly":
			require.True(t, plain, name)
		default:
			require.False(t, plain, name)
		}
	}
}
