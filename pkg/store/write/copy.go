package write

import (
	"context"
	"encoding/binary"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
)

// copyIn appends n rows to a table. COPY takes some two thirds of the time of an INSERT of arrays,
// and its rows are never all in memory. sql holds one COPY FROM STDIN in binary form; row appends
// row i, which begins with rowOf.
func copyIn(ctx context.Context, tx pgx.Tx, sql string, n int, row func(b []byte, i int) []byte) error {
	if n == 0 {
		return nil
	}
	_, err := tx.Conn().PgConn().CopyFrom(ctx, &copied{n: n, row: row}, sql)
	return err
}

// copyChunk is about how much of the rows is in memory at a time.
const copyChunk = 64 << 10

const (
	copyHeader  = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00"
	copyTrailer = "\xff\xff"
)

// copied are rows in Postgres's binary form, made as they are read.
type copied struct {
	n, at     int
	row       func(b []byte, i int) []byte
	buf, rest []byte
}

func (c *copied) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if c.at > c.n {
			return 0, io.EOF
		}
		c.fill()
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *copied) fill() {
	b := c.buf[:0]
	if c.at == 0 {
		b = append(b, copyHeader...)
	}
	for ; c.at < c.n && len(b) < copyChunk; c.at++ {
		b = c.row(b, c.at)
	}
	if c.at == c.n {
		b = append(b, copyTrailer...)
		c.at++
	}
	c.buf, c.rest = b, b
}

// rowOf begins a row of so many columns, each of which one of the functions below appends.
func rowOf(b []byte, columns int) []byte { return binary.BigEndian.AppendUint16(b, uint16(columns)) }

func appendInt(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(appendLen(b, 8), uint64(n))
}

func appendBytes[T ~string | ~[]byte](b []byte, s T) []byte {
	return append(appendLen(b, len(s)), s...)
}

func appendLen(b []byte, n int) []byte { return binary.BigEndian.AppendUint32(b, uint32(n)) }

func appendBool(b []byte, is bool) []byte {
	return append(appendLen(b, 1), byte(count(is)))
}

// postgresEpoch is the time that Postgres counts from, in microseconds.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func appendTime(b []byte, t time.Time) []byte { return appendInt(b, t.UnixMicro()-postgresEpoch) }

// The types of an array's elements.
const (
	oidInt  = 20
	oidText = 25
)

func appendTexts(b []byte, all []string) []byte {
	return appendArray(b, oidText, all, appendBytes[string])
}

func appendInts(b []byte, all []int64) []byte { return appendArray(b, oidInt, all, appendInt) }

func appendArray[T any](b []byte, oid uint32, all []T, element func([]byte, T) []byte) []byte {
	at := len(b)
	b = appendLen(b, 0) // known at the end
	dimensions := uint32(min(len(all), 1))
	b = binary.BigEndian.AppendUint32(b, dimensions)
	b = binary.BigEndian.AppendUint32(b, 0) // no element is NULL
	b = binary.BigEndian.AppendUint32(b, oid)
	if dimensions > 0 {
		b = appendLen(b, len(all))
		b = binary.BigEndian.AppendUint32(b, 1) // the first one's number
	}
	for _, e := range all {
		b = element(b, e)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}
