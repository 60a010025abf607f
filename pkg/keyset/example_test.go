package keyset_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/tagstream/tagstream/pkg/keyset"
)

// A list by one unique column, newest first, from the first page to a token and to the query of the
// second page.
func Example() {
	type photo struct {
		Key   [16]byte
		Title string
	}
	ordering := keyset.MustOrdering(keyset.Column{Name: "key", Sort: keyset.Desc, Type: keyset.TypeUUID})
	keyOf := func(p photo) []keyset.Value { return []keyset.Value{keyset.UUID(p.Key)} }
	signing, _ := keyset.NewKey("2026-11", bytes.Repeat([]byte("s"), keyset.MinSecret))
	codec, _ := keyset.NewCodec(signing)
	// The filters of this list: its tokens work only with them.
	fingerprint := ordering.Fingerprint(keyset.Filter{Name: "album", Values: []string{"cats"}})

	// A page of two: the query has LIMIT 3, and returned three rows.
	rows := []photo{{[16]byte{9}, "nap"}, {[16]byte{7}, "box"}, {[16]byte{4}, "sun"}}
	page := keyset.Slice(rows, 2, keyset.Forward, keyset.Start(), keyOf)
	token := codec.Encode(page.Next, fingerprint)
	fmt.Println(len(page.Rows), "rows, more:", page.More)

	// The next request sends the token back.
	from, err := codec.Decode(token, fingerprint)
	if err != nil {
		fmt.Println(err) // 400
		return
	}
	seek, _ := ordering.Seek(keyset.Forward, from, 3) // $1 is the album, $2 the limit
	fmt.Println("SELECT key, title FROM photos WHERE album = $1 AND", seek.Where, "ORDER BY", seek.OrderBy, "LIMIT $2")

	// Output:
	// 2 rows, more: true
	// SELECT key, title FROM photos WHERE album = $1 AND key < $3 ORDER BY key DESC LIMIT $2
}

// Columns that all have one direction are compared as a row.
func ExampleOrdering_Seek() {
	ordering := keyset.MustOrdering(
		keyset.Column{Name: "rank", Expr: "-posts", Type: keyset.TypeInt64},
		keyset.Column{Name: "name", Type: keyset.TypeText},
	)
	page := keyset.Below(keyset.Int64(-12), keyset.Text("art"))
	for _, direction := range []keyset.Direction{keyset.Forward, keyset.Backward} {
		seek, _ := ordering.Seek(direction, page, 1)
		fmt.Println("WHERE", seek.Where, "ORDER BY", seek.OrderBy)
	}
	// Output:
	// WHERE (-posts, name) > ($1, $2) ORDER BY -posts ASC, name ASC
	// WHERE (-posts, name) <= ($1, $2) ORDER BY -posts DESC, name DESC
}

// If directions differ, the rows after a position lie in several ranges.
func ExampleSeek_branches() {
	ordering := keyset.MustOrdering(
		keyset.Column{Name: "posts", Sort: keyset.Desc, Type: keyset.TypeInt64},
		keyset.Column{Name: "name", Type: keyset.TypeText},
	)
	seek, _ := ordering.Seek(keyset.Forward, keyset.Below(keyset.Int64(12), keyset.Text("art")), 1)
	for _, branch := range seek.Branches {
		fmt.Println(branch.Where, branch.Args)
	}
	fmt.Println("at once:", seek.Where)
	// Output:
	// posts = $1 AND name > $2 [12 art]
	// posts < $1 [12]
	// at once: posts <= $1 AND (posts = $1 AND name > $2 OR posts < $1)
}

// NULLs have their place in the order; a plain comparison would lose them.
func ExampleSeek_Union() {
	ordering := keyset.MustOrdering(
		keyset.Column{Name: "due", Nulls: keyset.NullsLast, Type: keyset.TypeInt64},
		keyset.Column{Name: "id", Type: keyset.TypeInt64},
	)
	seek, _ := ordering.Seek(keyset.Forward, keyset.Below(keyset.Int64(20), keyset.Int64(7)), 1)
	fmt.Println(seek.Union("SELECT due, id FROM tasks", "", "51"))

	seek, _ = ordering.Seek(keyset.Forward, keyset.Below(keyset.Null(), keyset.Int64(9)), 1)
	fmt.Println(seek.Union("SELECT due, id FROM tasks", "", "51"))
	// Output:
	// SELECT * FROM ((SELECT due, id FROM tasks WHERE due = $1 AND id > $2 ORDER BY due ASC NULLS LAST, id ASC LIMIT 51) UNION ALL (SELECT due, id FROM tasks WHERE due > $1 ORDER BY due ASC NULLS LAST, id ASC LIMIT 51) UNION ALL (SELECT due, id FROM tasks WHERE due IS NULL ORDER BY due ASC NULLS LAST, id ASC LIMIT 51)) AS page ORDER BY due ASC NULLS LAST, id ASC LIMIT 51
	// SELECT due, id FROM tasks WHERE due IS NULL AND id > $1 ORDER BY due ASC NULLS LAST, id ASC LIMIT 51
}

// Going back from an empty page after the last row returns that row.
func ExampleSlice() {
	key := func(n int64) []keyset.Value { return []keyset.Value{keyset.Int64(n)} }
	last := keyset.Slice([]int64{8, 9}, 2, keyset.Forward, keyset.Below(keyset.Int64(7)), key)
	fmt.Println(last.Rows, last.More)

	empty := keyset.Slice(nil, 2, keyset.Forward, last.Next, key)
	fmt.Println(empty.Rows, empty.More)

	ordering := keyset.MustOrdering(keyset.Column{Name: "n", Type: keyset.TypeInt64})
	seek, _ := ordering.Seek(keyset.Backward, empty.Previous, 1)
	fmt.Println(seek.Where, seek.Args, "ORDER BY", seek.OrderBy)

	// Rows read backward arrive nearest first, and are returned in forward order.
	back := keyset.Slice([]int64{9, 8, 7}, 2, keyset.Backward, empty.Previous, key)
	fmt.Println(back.Rows, back.More)
	// Output:
	// [8 9] false
	// [] false
	// n <= $1 [9] ORDER BY n DESC
	// [8 9] true
}

// A genuine token is refused under other filters; a changed one always.
func ExampleCodec_Decode() {
	ordering := keyset.MustOrdering(keyset.Column{Name: "id", Type: keyset.TypeInt64})
	key, _ := keyset.NewKey("k1", bytes.Repeat([]byte{1}, keyset.MinSecret))
	codec, _ := keyset.NewCodec(key)
	cats := ordering.Fingerprint(keyset.Filter{Name: "album", Values: []string{"cats"}})
	dogs := ordering.Fingerprint(keyset.Filter{Name: "album", Values: []string{"dogs"}})

	token := codec.Encode(keyset.Below(keyset.Int64(42)), cats)
	p, err := codec.Decode(token, cats)
	fmt.Println(p.Key[0].Arg(), err)
	_, err = codec.Decode(token, dogs)
	fmt.Println(err, errors.Is(err, keyset.ErrTokenMismatch))
	_, err = codec.Decode(token+"AAAA", cats)
	fmt.Println(err, errors.Is(err, keyset.ErrBadToken))
	// Output:
	// 42 <nil>
	// page token belongs to another query true
	// bad page token: wrong signature true
}
