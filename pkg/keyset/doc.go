// Package keyset pages through SQL query results by seeking, so that page 10,000
// costs what page 1 does and rows that come and go meanwhile are neither
// repeated nor missed. It owns orderings, the predicates that follow from them,
// the cutting of pages, and the signed tokens that carry a place in the list to
// the client and back. It knows no table, runs no query and needs no driver: it
// writes SQL for Postgres and takes rows of any type.
//
// # Why not OFFSET
//
// OFFSET 10000 reads 10,000 rows to throw them away, so a page costs more the
// deeper it is. Worse, it counts from the top of a list that moves: a row that
// is inserted above the reader pushes one it has seen onto its next page, and a
// row that is deleted above pulls one past it unseen. Keyset paging remembers
// where the reader is instead: the values of the ordering's columns at the last
// row, its key. The next page is what follows that key, and an index goes there
// directly. The price is that there is no "page 7": a reader goes on, back, or to
// a place that it knows by value. Small lists that need page numbers are what
// OFFSET is for.
//
// The ordering must be total. Ordered by time alone, two rows of the same
// microsecond have no order of their own, and a page that ends between them
// loses or repeats one. So the last column is one that tells all rows apart,
// such as the primary key.
//
// # Why positions lie between rows
//
// A [Position] is a place beside a row, not the row: [Above] or [Below] a key,
// or [Start] or [End] of the list. So a page has two edges, and reading on from
// either is the same question whatever has happened to the rows. Take a reader
// who has come to the end and gets an empty page. With cursors that are rows,
// going back gives the rows before the last one: the last row itself is lost,
// since its cursor leaves it out. Going back from below the last row gives the
// last row. A key also needs no row to exist, so a deleted row ends nobody's
// paging. Only a row's own cursor is [At] it, and leaves the row out both ways,
// as clients that hold the row expect.
//
// An empty page has edges too, the place where it was asked for. A client that
// keeps them can come back later for what has arrived.
//
// # Why n+1
//
// To know if there is another page, ask for one row more than the page holds.
// If it comes, there is, and [Slice] drops it. Counting the rows instead costs a
// scan of them all, on every page, and is out of date once it is sent; and
// "this page is full" is wrong each time that a list ends with a full page.
//
// # Reading backward
//
// The page above an edge is read against the ordering, nearest rows first, and
// then turned round. Every column's direction and the place of NULLs are
// reversed, so the same index serves, read from its other end. Pages read
// backward are the forward pages reversed.
//
// # Which form of the predicate
//
// Give the ordering an index over the same columns, directions and places of
// NULLs ([Ordering.OrderBy] of Forward). Then:
//
//   - If all columns go one way and none is NULL, [Seek].Where is a row comparison
//     and is all that is needed: one range of the index, no sort, no row read that
//     is not returned.
//   - If directions differ, first try to make them agree: ordering by posts DESC,
//     name ASC is ordering by -posts ASC, name ASC, with an index on ((-posts),
//     name) INCLUDE (posts), or over a stored column.
//   - If they cannot agree, or a column may be NULL, use [Seek].Branches: run them in
//     turn until the page is full, and each is one range of the index, read
//     without a sort and no further than the page goes. [Seek.Union] is the same in
//     one statement, for a few more rows.
//   - Seek.Where is right in these cases too, but reads rows that it does not return:
//     those that tie with the position and, where NULLs follow, all rows before it.
//     It is for lists that are small.
//
// Postgres sorts NULLs last in ascending columns and first in descending ones,
// in ORDER BY as in an index. Another place is possible, but then the index must
// be declared with it, or the query sorts.
//
// # Tokens
//
// A token made by [Codec.Encode] is a position that is signed, so that nobody can
// make one up to start a query at an odd place, and bound to a [Fingerprint] of
// the ordering and filters, so that a client that changes its query in the middle
// hears of it instead of getting pages that do not fit. It does not expire, and
// is not secret: the key in it can be read by whoever has it. [Codec.Decode]
// answers [ErrBadToken] or [ErrTokenMismatch], before any query is made.
//
// # Failures
//
// Nothing in this package retries, blocks or keeps state. An error from a
// constructor or from [Ordering.Seek] is a mistake in code or configuration; an
// error from Decode is the client's. Rows whose key changes while a reader pages
// may be seen twice or not at all, as they truly move; rows whose key stays are
// seen exactly once.
package keyset
