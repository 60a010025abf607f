package firehose

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/jetstream/segment"
	"github.com/jcalabro/atmos/api/comatproto"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// fakeArchive serves sealed segments like the real server, from files written by the server's own
// package.
type fakeArchive struct {
	t   *testing.T
	dir string

	mu     sync.Mutex
	files  []string
	ranges []string // of getSegment requests
	blocks int      // getBlock requests
	plans  int
	// rewritten counts down. While it is above zero, blocks claim another version.
	rewritten int
}

const (
	eventsPerBlock   = 4
	blocksPerSegment = 3
)

// newFakeArchive seals segments of account events with ascending numbers, except for those that are
// gone.
func newFakeArchive(t *testing.T, segments int, gone ...uint64) *fakeArchive {
	t.Helper()
	a := &fakeArchive{t: t, dir: t.TempDir()}
	seq := uint64(0)
	for i := range segments {
		name := fmt.Sprintf("seg_%010d.jss", i)
		w, err := segment.New(segment.Config{Path: filepath.Join(a.dir, name), MaxEventsPerBlock: eventsPerBlock})
		require.NoError(t, err)
		for range eventsPerBlock * blocksPerSegment {
			seq++
			if slices.Contains(gone, seq) {
				continue
			}
			at := past.Add(time.Duration(seq) * time.Second)
			payload, err := (&comatproto.SyncSubscribeRepos_Account{DID: "did:plc:a", Active: true, Seq: 1, Time: at.Format(time.RFC3339Nano)}).MarshalCBOR()
			require.NoError(t, err)
			full, err := w.Append(segment.Event{
				Seq: seq, WitnessedAt: at.UnixMicro(), Kind: segment.KindAccount, DID: "did:plc:a", Payload: payload,
			})
			require.NoError(t, err)
			if full {
				require.NoError(t, w.Flush())
			}
		}
		_, err = w.Seal()
		require.NoError(t, err)
		require.NoError(t, w.Close())
		a.files = append(a.files, name)
	}
	return a
}

// last returns the archive's last sequence number.
func (a *fakeArchive) last() uint64 {
	return uint64(len(a.files) * eventsPerBlock * blocksPerSegment)
}

// attach lets a host serve the archive.
func (a *fakeArchive) attach(h *fakeHost) {
	h.mux.HandleFunc(getSegmentPath, a.getSegment)
	h.mux.HandleFunc(getBlockPath, a.getBlock)
	var list []string
	for _, name := range a.files {
		s, _ := a.header(name)
		list = append(list, fmt.Sprintf(`{"maxSeq":%d,"minWitnessedAt":%d,"maxWitnessedAt":%d}`, s.MaxSeq, s.MinWitnessedAt, s.MaxWitnessedAt))
	}
	h.change(func() {
		h.planner = a.plan
		h.pages = []string{"[" + strings.Join(list[:1], ",") + "]", "[" + strings.Join(list[1:], ",") + "]"}
	})
}

func (a *fakeArchive) header(name string) (segment.Header, []byte) {
	data, err := os.ReadFile(filepath.Join(a.dir, name))
	require.NoError(a.t, err)
	header, err := segment.ReadSealedHeader(bytes.NewReader(data))
	require.NoError(a.t, err)
	return header, data
}

func (a *fakeArchive) plan(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.plans++
	a.mu.Unlock()
	var in struct{ AfterSeq, BeforeSeq uint64 }
	require.NoError(a.t, json.NewDecoder(r.Body).Decode(&in))
	out := plan{SealedTipSeq: int64(a.last()), PlannedThroughSeq: int64(a.last()), Segments: []planSegment{}}
	for i, name := range a.files {
		h, _ := a.header(name)
		if h.MaxSeq > in.AfterSeq {
			out.Segments = append(out.Segments, planSegment{
				Name: name, Index: int64(i), Checksum: fmt.Sprintf("%016x", h.Checksum), MinSeq: int64(h.MinSeq), MaxSeq: int64(h.MaxSeq), Mode: "segment",
			})
		}
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (a *fakeArchive) getSegment(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.ranges = append(a.ranges, r.Header.Get("Range"))
	a.mu.Unlock()
	_, data := a.header(r.URL.Query().Get("name"))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func (a *fakeArchive) getBlock(w http.ResponseWriter, r *http.Request) {
	header, data := a.header(r.URL.Query().Get("segment"))
	n, err := strconv.Atoi(r.URL.Query().Get("blockIndex"))
	require.NoError(a.t, err)
	frame, err := segment.ReadBlockFrame(bytes.NewReader(data), header, n)
	require.NoError(a.t, err)
	checksum := header.Checksum
	a.mu.Lock()
	a.blocks++
	if a.rewritten > 0 {
		a.rewritten--
		checksum++
	}
	a.mu.Unlock()
	w.Header().Set("ETag", fmt.Sprintf(`"%016x:%d"`, checksum, n))
	_, _ = w.Write(frame)
}

func TestArchiveIsReadBlockByBlock(t *testing.T) {
	t.Parallel()
	const segments = 2*pageSegments + 3
	a := newFakeArchive(t, segments)
	h := newFakeHost(t)
	a.attach(h)
	h.emit(past.Add(time.Hour), a.last()+1)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await(fmt.Sprint("a:", a.last()+1))
	var want []string
	for seq := uint64(1); seq <= a.last()+1; seq++ {
		want = append(want, fmt.Sprint("a:", seq))
	}
	require.Equal(t, want, s.all())
	a.mu.Lock()
	defer a.mu.Unlock()
	require.Equal(t, 3, a.plans, "plans must be read in pages")
	require.Equal(t, segments*blocksPerSegment, a.blocks)
	require.Len(t, a.ranges, segments)
	for _, r := range a.ranges {
		require.Equal(t, "bytes=0-255", r, "only the headers of segments must be read")
	}
}

func TestArchiveIsReadFromPosition(t *testing.T) {
	t.Parallel()
	a := newFakeArchive(t, 3)
	h := newFakeHost(t)
	a.attach(h)
	h.emit(past.Add(time.Hour), a.last()+1)
	h.change(func() { h.floor = a.last() }) // the sealed tip is just within the live window
	pos := event.Position{Host: h.srv.URL, Seq: 17, Time: past.Add(17 * time.Second)}
	s := read(t, pos, Config{}, h)
	s.await(fmt.Sprint("a:", a.last()+1))
	require.Equal(t, "a:18", s.all()[0])
	require.Len(t, s.all(), int(a.last()+1-17))
}

func TestRewrittenSegmentIsReread(t *testing.T) {
	t.Parallel()
	a := newFakeArchive(t, 2)
	a.rewritten = 2
	h := newFakeHost(t)
	a.attach(h)
	h.emit(past.Add(time.Hour), a.last()+1)
	s := read(t, event.Position{}, Config{Start: Start{Archive: true}}, h)
	s.await(fmt.Sprint("a:", a.last()+1))
	require.Len(t, s.all(), int(a.last()+1), "nothing may be lost or duplicated")
}
