package keyset_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/keyset"
)

func TestNewOrderingRefuses(t *testing.T) {
	t.Parallel()
	id := keyset.Column{Name: "id", Type: keyset.TypeInt64}
	for name, test := range map[string]struct {
		columns []keyset.Column
		want    string
	}{
		"no columns":        {nil, "1 to 8 columns, not 0"},
		"too many":          {make([]keyset.Column, 9), "1 to 8 columns, not 9"},
		"no name":           {[]keyset.Column{{Expr: "lower(x)", Type: keyset.TypeText}}, "has no name"},
		"no type":           {[]keyset.Column{{Name: "x"}}, "unknown type 0"},
		"unknown type":      {[]keyset.Column{{Name: "x", Type: 99}}, "unknown type 99"},
		"unknown direction": {[]keyset.Column{{Name: "x", Type: keyset.TypeText, Sort: 2}}, "unknown direction 2"},
		"unknown nulls":     {[]keyset.Column{{Name: "x", Type: keyset.TypeText, Nulls: 3}}, "unknown place of NULLs 3"},
		"twice":             {[]keyset.Column{id, id}, `"id" is named twice`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := keyset.NewOrdering(test.columns...)
			require.ErrorContains(t, err, test.want)
			require.Panics(t, func() { keyset.MustOrdering(test.columns...) })
		})
	}
}

func TestOrderBy(t *testing.T) {
	t.Parallel()
	o := keyset.MustOrdering(
		keyset.Column{Name: "a", Sort: keyset.Desc, Type: keyset.TypeInt64},
		keyset.Column{Name: "b", Expr: "lower(t.b)", Nulls: keyset.NullsFirst, Type: keyset.TypeText},
		keyset.Column{Name: "c", Sort: keyset.Desc, Nulls: keyset.NullsLast, Type: keyset.TypeTime},
		keyset.Column{Name: "d", Type: keyset.TypeUUID},
	)
	require.Equal(t, "a DESC, lower(t.b) ASC NULLS FIRST, c DESC NULLS LAST, d ASC", o.OrderBy(keyset.Forward))
	require.Equal(t, "a ASC, lower(t.b) DESC NULLS LAST, c ASC NULLS FIRST, d DESC", o.OrderBy(keyset.Backward))
	require.Equal(t, "d", o.Columns()[3].Expr)
}

// Whatever changes the meaning of a token changes the fingerprint; nothing else does.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	column := keyset.Column{Name: "a", Type: keyset.TypeInt64}
	filter := func(name string, values ...string) keyset.Filter {
		return keyset.Filter{Name: name, Values: values}
	}
	with := func(change func(*keyset.Column)) *keyset.Ordering {
		c := column
		change(&c)
		return keyset.MustOrdering(c)
	}
	plain := keyset.MustOrdering(column)
	seen := map[keyset.Fingerprint]string{}
	for name, f := range map[string]keyset.Fingerprint{
		"plain":              plain.Fingerprint(),
		"another name":       with(func(c *keyset.Column) { c.Name = "b" }).Fingerprint(),
		"descending":         with(func(c *keyset.Column) { c.Sort = keyset.Desc }).Fingerprint(),
		"nulls first":        with(func(c *keyset.Column) { c.Nulls = keyset.NullsFirst }).Fingerprint(),
		"nulls last":         with(func(c *keyset.Column) { c.Nulls = keyset.NullsLast }).Fingerprint(),
		"another type":       with(func(c *keyset.Column) { c.Type = keyset.TypeText }).Fingerprint(),
		"empty filter":       plain.Fingerprint(filter("")),
		"no values":          plain.Fingerprint(filter("tags")),
		"empty value":        plain.Fingerprint(filter("tags", "")),
		"two values":         plain.Fingerprint(filter("tags", "a", "b")),
		"the other order":    plain.Fingerprint(filter("tags", "b", "a")),
		"joined by comma":    plain.Fingerprint(filter("tags", "a,b")),
		"joined":             plain.Fingerprint(filter("tags", "ab")),
		"moved boundary":     plain.Fingerprint(filter("tags", "ab", "")),
		"two filters":        plain.Fingerprint(filter("tags", "a"), filter("b")),
		"value as a filter":  plain.Fingerprint(filter("tags"), filter("a"), filter("b")),
		"name into a value":  plain.Fingerprint(filter("tag", "sa", "b")),
		"text of the length": plain.Fingerprint(filter("tags", "a\x00\x00\x00\x01b")),
	} {
		require.Empty(t, seen[f], "%s has the fingerprint of %s", name, seen[f])
		seen[f] = name
	}
	require.Equal(t, plain.Fingerprint(filter("tags", "a")), plain.Fingerprint(filter("tags", "a")))
	require.Equal(t, plain.Fingerprint(), with(func(c *keyset.Column) { c.Expr = "t.a" }).Fingerprint(),
		"the SQL behind a column may change while its tokens live")

	// Tokens never expire, so a fingerprint must never change, not even by accident.
	f := plain.Fingerprint(filter("tags", "art", "photo"))
	require.Equal(t, "61a620df3f8f6b727f99be200260e018", hexOf(f[:]))
}
