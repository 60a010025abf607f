package soak_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/test/simnet"
)

// The failures that need two hosts, one of which stamps events minutes after the other.
const (
	relayAway     = "relay of the host away"
	hostLagging   = "host lagging"
	importedTimes = "imported times"
)

const (
	importToken = "soak"
	// importedPosts is how many posts get an imported time together, and editedPosts how many of
	// them are edited after that.
	importedPosts, editedPosts = 40, 8
	// lookPause is the pause between two looks at the stream.
	lookPause = 300 * time.Millisecond
)

var importedTime = time.Date(2023, 3, 4, 5, 6, 7, 0, time.UTC)

// eventually returns a step that checks from time to time whether it is complete.
func eventually(look func() bool) step {
	var next time.Time
	return step{0, func() bool {
		if time.Now().Before(next) {
			return false
		}
		next = time.Now().Add(lookPause)
		return look()
	}}
}

// last returns the stream's last event and its number, if available.
func (s *site) last() (ev *event.Event, seq uint64) {
	ctx := s.t.Context()
	_ = s.withStream(func(js jetstream.JetStream) error { // it may be unavailable
		state, err := stream.GetState(ctx, js)
		if err != nil {
			return err
		}
		msg, err := stream.GetMessage(ctx, js, state.Last)
		if err != nil || msg == nil {
			return err
		}
		ev, err = event.Decode(msg.Data)
		seq = state.Last
		return err
	})
	return ev, seq
}

// reads returns the host of the stream's last event, nil if unknown.
func (s *site) reads() *simnet.Jetstream {
	ev, _ := s.last()
	switch {
	case ev == nil:
	case ev.ResumeAt().Host == "http://"+s.toHost.Addr():
		return s.host
	case ev.ResumeAt().Host == "http://"+s.toOther.Addr():
		return s.other
	}
	return nil
}

// pair is the host that ingest reads and the idle one, for the duration of a failure.
type pair struct {
	s          *site
	read, idle *simnet.Jetstream
}

// find is a step that finds out which host is read.
func (p *pair) find() step {
	return eventually(func() bool {
		p.read, p.idle = p.s.reads(), p.s.host
		if p.read == p.s.host {
			p.idle = p.s.other
		}
		return p.read != nil
	})
}

// left is a step that is complete when the host is not read any more.
func (p *pair) left() step {
	return eventually(func() bool { return p.s.reads() == p.idle })
}

func (p *pair) stop() { p.s.must(p.read.Stop()) }

// start starts the host that was stopped, with its relay.
func (p *pair) start() {
	p.read.Relay().Away(false)
	p.s.must(p.read.Restart(p.s.t.Context()))
}

// ofHosts are the parts that a change of hosts uses.
var ofHosts = []string{"jetstream", "ingest to jetstream", "ingest", "standby"}

// relayAway cuts the relay from the host that is read. The host still answers but is silent, until
// ingest has changed to the other one.
func (s *site) relayAway(rng *rand.Rand) failure {
	p := &pair{s: s}
	return failure{uses: ofHosts, steps: []step{
		p.find(),
		once(between(rng, 0, time.Second), func() { p.read.Relay().Away(true) }),
		p.left(),
		s.counted(relayAway),
		// Restart the server along with the relay: by now it retries only rarely.
		once(0, func() { p.stop(); p.start() }),
	}}
}

// hostLagging makes ingest change from a host that lacks the newest events to the other one, and
// back. One of them stamps the same events minutes late.
func (s *site) hostLagging(rng *rand.Rand) failure {
	p := &pair{s: s}
	there := []step{
		p.find(),
		once(0, func() { p.read.Relay().Away(true) }),
		once(between(rng, time.Second, 4*time.Second), p.stop),
		p.left(),
		once(0, p.start),
	}
	back := []step{p.find(), once(between(rng, 0, 2*time.Second), p.stop), p.left(), once(0, p.start), s.counted(hostLagging)}
	return failure{uses: ofHosts, steps: append(there, back...)}
}

// importedTimes makes the idle host, or both, show a day of 2023 for some posts, as its operator
// does when moving them from another indexer. Then ingest must change to that host, and some of the
// posts are edited and repeated by a #sync.
func (s *site) importedTimes(rng *rand.Rand) failure {
	p := &pair{s: s}
	both := rng.IntN(2) == 0
	var posts []simnet.OpResult
	var from uint64
	return failure{uses: ofHosts, steps: []step{
		p.find(),
		once(0, func() {
			posts = s.somePosts(rng, importedPosts)
			s.importTimes(p.idle, posts)
			if both {
				s.importTimes(p.read, posts)
			}
			_, from = s.last()
			p.stop()
		}),
		p.left(),
		once(0, func() { s.edit(posts) }),
		eventually(func() bool {
			came := false
			s.eachEvent(from, func(_ uint64, ev *event.Event) { came = came || ev.IsPost() && ev.Source.Time.Equal(importedTime) })
			return came
		}),
		s.counted(importedTimes),
		once(0, p.start),
	}}
}

// somePosts returns existing posts of accounts that can write.
func (s *site) somePosts(rng *rand.Rand, limit int) (posts []simnet.OpResult) {
	for _, did := range s.network.Active() {
		records, err := s.network.Records(did)
		s.must(err)
		for _, r := range records {
			if r.Collection == simnet.PostCollection {
				posts = append(posts, r)
			}
		}
	}
	rng.Shuffle(len(posts), func(i, j int) { posts[i], posts[j] = posts[j], posts[i] })
	return posts[:min(limit, len(posts))]
}

// importTimes returns when a host shows the imported time for the posts.
func (s *site) importTimes(host *simnet.Jetstream, posts []simnet.OpResult) {
	var uris []string
	for _, p := range posts {
		uris = append(uris, p.URI)
		s.imported[p.URI] = true
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), failureLimit)
	defer cancel()
	_, err := host.ImportTimes(ctx, importToken, importedTime, uris...)
	s.must(err)
}

// edit edits those of the posts that still exist, and repeats those of the last account with a
// #sync. Posts of accounts that left since stay unchanged.
func (s *site) edit(posts []simnet.OpResult) {
	edited := 0
	for _, p := range posts {
		did, rkey := accountOf(p), p.Rkey
		if !slices.Contains(s.network.Active(), did) {
			continue
		}
		if _, err := s.network.UpdatePost(did, rkey, simnet.NewPost(s.network.Now(), "edited after an import", "photo")); err != nil {
			continue // it was deleted meanwhile
		}
		if edited++; edited < editedPosts {
			continue
		}
		_, err := s.network.Sync(did, simnet.Op{Action: simnet.Create, Record: simnet.NewPost(s.network.Now(), "synced after an import", "art")})
		if errors.Is(err, simnet.ErrInactive) {
			continue
		}
		s.must(err)
		return
	}
}

func accountOf(p simnet.OpResult) string {
	did, _, _ := strings.Cut(strings.TrimPrefix(p.URI, "at://"), "/")
	return did
}

// eachEvent calls fn with the stream's events after a message, as far as available.
func (s *site) eachEvent(after uint64, fn func(seq uint64, ev *event.Event)) {
	ctx := s.t.Context()
	_ = s.withStream(func(js jetstream.JetStream) error { // it may be unavailable
		state, err := stream.GetState(ctx, js)
		if err != nil {
			return err
		}
		return eachMessage(ctx, js, after+1, state.Last, func(m stream.Message) error {
			ev, err := event.Decode(m.Data)
			s.must(err)
			fn(m.Seq, ev)
			return nil
		})
	})
}
