package firehose

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// wsFrame is a frame of a websocket with n bytes.
func wsFrame(first byte, n int) []byte {
	b := []byte{first}
	switch {
	case n < wsLen16:
		b = append(b, byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, wsLen16), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, wsLen64), uint64(n))
	}
	return append(b, strings.Repeat("x", n)...)
}

type readWriteCloser struct {
	io.Reader
	io.WriteCloser
}

func TestOversizeFilter(t *testing.T) {
	t.Parallel()
	const limit, text, binaryData, ping, begin, end = 70_000, wsFinal | wsText, wsFinal | wsBinary, wsFinal | 0x9, wsText, wsFinal
	tests := map[string]struct {
		in, out [][]byte
		skipped []uint64
	}{
		"nothing":              {},
		"short ones":           {in: [][]byte{wsFrame(text, 0), wsFrame(text, 5), wsFrame(binaryData, 125)}},
		"longer ones":          {in: [][]byte{wsFrame(text, 126), wsFrame(text, 65_535), wsFrame(text, 65_536)}},
		"at the limit":         {in: [][]byte{wsFrame(text, limit)}},
		"over it":              {in: [][]byte{wsFrame(text, limit+1)}, out: [][]byte{}, skipped: []uint64{limit + 1}},
		"over it, between":     {in: [][]byte{wsFrame(text, 1), wsFrame(binaryData, 2*limit), wsFrame(text, 2)}, out: [][]byte{wsFrame(text, 1), wsFrame(text, 2)}, skipped: []uint64{2 * limit}},
		"two in a row":         {in: [][]byte{wsFrame(text, limit+1), wsFrame(text, limit+2), wsFrame(ping, 3)}, out: [][]byte{wsFrame(ping, 3)}, skipped: []uint64{limit + 1, limit + 2}},
		"in several frames":    {in: [][]byte{wsFrame(begin, limit+1), wsFrame(end, 3)}},
		"a message in a frame": {in: [][]byte{wsFrame(begin, 3), wsFrame(ping, 3), wsFrame(end, 3)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := bytes.Join(tt.in, nil)
			want := bytes.Join(tt.out, nil)
			if tt.out == nil {
				want = in
			}
			for how, r := range map[string]io.Reader{"whole": bytes.NewReader(in), "byte by byte": iotest.OneByteReader(bytes.NewReader(in))} {
				var skipped []uint64
				c := &filteredConn{ReadWriteCloser: readWriteCloser{Reader: r}, in: bufio.NewReader(r), limit: limit, skipped: func(n uint64) { skipped = append(skipped, n) }}
				got, err := io.ReadAll(c)
				require.NoError(t, err, how)
				require.True(t, bytes.Equal(want, got), "%s: %d bytes, want %d", how, len(got), len(want))
				require.Equal(t, tt.skipped, skipped, how)
			}
		})
	}
}
