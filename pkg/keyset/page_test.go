package keyset_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
)

func TestSlice(t *testing.T) {
	t.Parallel()
	v := keyset.Int64
	for name, test := range map[string]struct {
		rows           []int64 // as the query gave them
		n              int
		direction      keyset.Direction
		from           keyset.Position
		want           []int64
		more           bool
		previous, next keyset.Position
	}{
		"first page, more":       {[]int64{1, 2, 3}, 2, keyset.Forward, keyset.Start(), []int64{1, 2}, true, keyset.Above(v(1)), keyset.Below(v(2))},
		"full last page":         {[]int64{3, 4}, 2, keyset.Forward, keyset.Below(v(2)), []int64{3, 4}, false, keyset.Above(v(3)), keyset.Below(v(4))},
		"short last page":        {[]int64{5}, 2, keyset.Forward, keyset.Below(v(4)), []int64{5}, false, keyset.Above(v(5)), keyset.Below(v(5))},
		"backward, more":         {[]int64{4, 3, 2}, 2, keyset.Backward, keyset.Above(v(5)), []int64{3, 4}, true, keyset.Above(v(3)), keyset.Below(v(4))},
		"backward, no more":      {[]int64{2, 1}, 2, keyset.Backward, keyset.Above(v(3)), []int64{1, 2}, false, keyset.Above(v(1)), keyset.Below(v(2))},
		"empty list":             {nil, 2, keyset.Forward, keyset.Start(), nil, false, keyset.Start(), keyset.Start()},
		"empty list, from end":   {nil, 2, keyset.Backward, keyset.End(), nil, false, keyset.End(), keyset.End()},
		"empty after the last":   {nil, 2, keyset.Forward, keyset.Below(v(5)), nil, false, keyset.Below(v(5)), keyset.Below(v(5))},
		"empty from a row":       {nil, 2, keyset.Forward, keyset.At(v(5)), nil, false, keyset.Below(v(5)), keyset.Below(v(5))},
		"empty back from a row":  {nil, 2, keyset.Backward, keyset.At(v(5)), nil, false, keyset.Above(v(5)), keyset.Above(v(5))},
		"page of none, more":     {[]int64{6}, 0, keyset.Forward, keyset.Below(v(5)), []int64{}, true, keyset.Below(v(5)), keyset.Below(v(5))},
		"a negative n is no row": {[]int64{6}, -3, keyset.Forward, keyset.Below(v(5)), []int64{}, true, keyset.Below(v(5)), keyset.Below(v(5))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := keyset.Slice(test.rows, test.n, test.direction, test.from, func(r int64) []keyset.Value { return []keyset.Value{v(r)} })
			require.Equal(t, test.want, p.Rows)
			require.Equal(t, test.more, p.More)
			require.True(t, test.previous.Equal(p.Previous), "previous %v", p.Previous)
			require.True(t, test.next.Equal(p.Next), "next %v", p.Next)
		})
	}
}
