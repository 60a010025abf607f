// Package keyset pages through SQL query results by seeking, so that page 10,000 costs as much as
// page 1, and rows that come and go in the meantime cause neither repeats nor misses. It owns
// orderings, the predicates that follow from them, the cutting of pages, and the signed tokens that
// carry a page position to the client and back. It knows no table, runs no query and needs no
// driver: it writes SQL for Postgres and takes rows of any type.
//
// # Why not OFFSET
//
// OFFSET 10000 reads 10,000 rows and discards them, so deep pages are expensive. Worse, it counts
// from the top of a changing list: a row inserted above the reader pushes a row already seen onto
// the next page, and a row deleted above pulls one past the reader unseen. Keyset paging remembers
// the key instead: the values of the ordering's columns at the last row. The next page is what
// follows that key, and an index seeks there directly. The price is that "page 7" does not exist.
// OFFSET is for small lists that need page numbers.
//
// The ordering must be total. Ordered by time alone, two rows of the same microsecond have no
// order, and a page that ends between them loses or repeats one. So the last column must be unique,
// such as the primary key.
//
// # Why positions lie between rows
//
// A [Position] lies beside a row, not on it: [Above] or [Below] a key, or at the [Start] or [End]
// of the list. So a page has two edges, and reading on from either is the same question whatever
// has happened to the rows. Consider a reader who reaches the end and gets an empty page. If
// cursors are rows, going back returns the rows before the last one: the last row is lost because
// its cursor excludes it. Going back from below the last row returns the last row. A key does not
// need its row to exist, so deleting a row does not end anybody's paging. Only a row's own cursor
// is [At] it, and excludes the row in both directions, as clients that hold the row expect.
//
// An empty page has edges too: the position it was requested at. A client that keeps them can
// return later for new rows.
//
// # Why n+1
//
// To know whether another page exists, request one row more than the page holds. If it exists,
// there is another page, and [Slice] drops the row. Counting rows instead would scan all of them on
// every page and be outdated when sent; "this page is full" is wrong whenever a list ends with a
// full page.
//
// # Reading backward
//
// The page above an edge is read against the ordering, nearest rows first, and then reversed. Every
// column's direction and NULL order are inverted, so the same index serves from its other end.
// Pages read backward equal the forward pages in reverse.
//
// # Which form of the predicate
//
// Give the ordering an index over the same columns, directions and NULL orders ([Ordering.OrderBy]
// of Forward). Then:
//
//   - If all columns have one direction and none is NULL, [Seek].Where is a row comparison and all
//     that is needed: one index range, no sort, and no row read that is not returned.
//   - If directions differ, first try to align them: posts DESC, name ASC equals -posts ASC, name
//     ASC, with an index on ((-posts), name) INCLUDE (posts), or over a stored column.
//   - If that is impossible, or a column may be NULL, use [Seek].Branches: run them in turn until
//     the page is full. Each is one index range, read without a sort and no further than the page
//     needs. [Seek.Union] does the same in one statement, for a few more rows.
//   - Seek.Where is correct in these cases too, but reads rows that it does not return: those that
//     tie with the position and, if NULLs follow, all rows before it. Use it for small lists.
//
// Postgres sorts NULLs last in ascending columns and first in descending ones, in ORDER BY and in
// an index. Any other order must also be declared in the index, or the query sorts.
//
// # Tokens
//
// A token made by [Codec.Encode] is a position that is signed, so that clients cannot forge one to
// start a query anywhere, and bound to a [Fingerprint] of the ordering and filters, so that a
// client that changes its query mid-way gets an error instead of pages that do not fit. It does not
// expire and is not secret: its holder can read the key in it. [Codec.Decode] returns [ErrBadToken]
// or [ErrTokenMismatch] before any query runs.
//
// # Failures
//
// Nothing in this package retries, blocks or keeps state. An error from a constructor or from
// [Ordering.Seek] is a mistake in code or configuration; an error from Decode is the client's
// mistake. Rows whose key changes while a reader pages may be seen twice or not at all, because
// they really move; rows whose key stays are seen exactly once.
package keyset
