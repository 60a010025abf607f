package erase_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/eventtest"
	"github.com/tagstream/tagstream/pkg/testkit/storetest"
	"github.com/tagstream/tagstream/services/indexer/internal/erase"
)

// A dead letter that the stream removes later goes with its message. One of a former stream is not
// taken for one of this.
func TestLetters(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	newer := func(ev event.Event) []byte {
		ev.Source = second(int(s.last))
		return bytes.Replace(eventtest.Encode(t, ev), []byte(`"v":1`), []byte(`"v":9`), 1)
	}
	s.add(position)                              // 1
	s.put(newer(create(a, "x", 'b')))            // 2
	s.put(newer(create(a, "y", 'b')))            // 3
	s.put(newer(create(b, "x", 'b')))            // 4
	s.add(gone(a, "x", 'c'))                     // 5
	s.add(own(40, at(30, status(b, ""))))        // 6
	s.add(own(30, at(40, status(b, "deleted")))) // 7: older than the known status
	s.put([]byte(`{"v":9,"what":"is this?"}`))   // 8
	s.add(position)                              // 9
	require.NoError(t, stream.PutDeadLetter(t.Context(), s.js, stream.DeadLetter{Seq: 4, Reason: "x", At: time.Now(), Payload: newer(create(a, "x", 'a'))}))
	left, sum := s.pass()
	require.Equal(t, []uint64{1, 3, 4, 5, 6, 7, 8, 9}, left)
	require.Equal(t, 1, sum.Erased[erase.Letters])
	seqs, err := stream.DeadLetterSeqs(t.Context(), s.js)
	require.NoError(t, err)
	require.Equal(t, []uint64{8, 4, 3}, seqs)

	s.add(at(50, status(b, "deleted")), position)
	require.NoError(t, stream.PutDeadLetter(t.Context(), s.js, stream.DeadLetter{Seq: 4, Reason: "x", At: time.Now(), Payload: s.read()[2].Data}))
	left, sum = s.pass()
	require.Equal(t, []uint64{1, 3, 5, 6, 7, 8, 9, 10, 11}, left)
	require.Equal(t, 1, sum.Erased[erase.Letters])
	e := erase.Eraser{JS: s.js, Writer: s.writer, Logger: storetest.Quiet, Within: time.Nanosecond}
	sum, err = e.Pass(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, sum.Erased[erase.Unreadable])
	st, err := s.writer.Checkpoint(t.Context())
	require.NoError(t, err)
	require.Equal(t, s.last, st.Seq)
}

// A dead letter of an author goes when the stream says something later of all that it says, or the
// account's deletion, and not because the index does not have it.
func TestLettersOfAuthors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	newer := func(ev event.Event) {
		ev.Source = second(int(s.last))
		s.put(bytes.Replace(eventtest.Encode(t, ev), []byte(`"v":2`), []byte(`"v":9`), 1))
	}
	both := func(did string, r byte, n int) event.Event {
		ev := named(did, r, false)
		ev.Handle = handled(did, n).Handle
		return ev
	}
	s.add(position, create(a, "x", 'b'), create(b, "x", 'b')) // 1 to 3
	newer(both(a, 'c', 1))                                    // 4
	newer(both(b, 'c', 1))                                    // 5
	newer(both(a, 'e', 3))                                    // 6: stays
	s.add(named(a, 'd', false), named(b, 'd', false))         // 7, 8
	s.add(position)                                           // 9
	letters := func(want ...uint64) {
		t.Helper()
		s.pass()
		seqs, err := stream.DeadLetterSeqs(t.Context(), s.js)
		require.NoError(t, err)
		require.ElementsMatch(t, want, seqs)
	}
	letters(4, 5, 6)
	s.add(handled(a, 2), position)
	letters(5, 6)
	s.add(at(50, status(b, "deleted")), position)
	letters(6)
	for _, m := range s.read() {
		require.NotContains(t, []uint64{4, 5}, m.Seq)
	}

	// These do not outdate other parts of an author in a newer format.
	letter := s.last + 1
	s.put([]byte(`{"v":9,"kind":"author","did":"` + a + `","pronouns":"they"}`))
	s.add(named(a, 'g', false), handled(a, 4), position)
	letters(letter)
}
