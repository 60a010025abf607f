package soak_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jcalabro/atmos"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/stream"
	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/test/process"
	"github.com/tagstream/tagstream/test/simnet"
)

const lateReplica = "late replica"

const (
	// deadPosts is the number of posts that become dead letters, deletedOfThem how many of these
	// are deleted while a replica is late.
	deadPosts, deletedOfThem = 6, 4
	// toolLimit bounds a command while a replica is late. Then it is run again: the server may let
	// it read from that replica.
	toolLimit = 45 * time.Second
)

// openCluster starts a NATS cluster inside this process, so that its replicas can be delayed. Every
// program uses its own member.
func (s *site) openCluster() {
	s.cluster = natstest.Cluster(s.t, 3, natstest.With(func(o *server.Options) {
		o.MaxPayload = 4 << 20
		o.Cluster.NoAdvertise = true // or clients would reconnect without their proxy
	}))
	for i, p := range []**fault.Proxy{&s.ingestNATS, &s.indexerNATS, &s.opsNATS} {
		u, err := url.Parse(s.cluster[i].URL())
		s.must(err)
		*p = fault.New(s.t, fault.NATS, u.Host, s.log)
	}
}

// follower returns a member that leads none of the streams, nil if there is none at the moment.
func (s *site) follower(streams ...string) *natstest.TestServer {
	js := s.cluster[0].JetStream(s.t)
	defer js.Conn().Close()
	free := slices.Clone(s.cluster)
	for _, name := range streams {
		st, err := js.Stream(s.t.Context(), name)
		if err != nil {
			return nil // it does not exist yet, or there is an election
		}
		cluster := st.CachedInfo().Cluster
		if cluster == nil || cluster.Leader == "" || len(cluster.Replicas) != len(s.cluster)-1 ||
			slices.ContainsFunc(cluster.Replicas, func(p *jetstream.PeerInfo) bool { return !p.Current }) {
			return nil
		}
		free = slices.DeleteFunc(free, func(m *natstest.TestServer) bool { return m.Name() == cluster.Leader })
	}
	if len(free) == 0 {
		return nil
	}
	return free[0]
}

// lacks reports whether a member's replica of the posts lacks a message.
func (s *site) lacks(member *natstest.TestServer, seq uint64) bool {
	js := member.JetStream(s.t)
	defer js.Conn().Close()
	st, err := js.Stream(s.t.Context(), stream.Posts)
	if err != nil {
		return false
	}
	_, err = st.GetMsg(s.t.Context(), seq)
	return errors.Is(err, jetstream.ErrMsgNotFound)
}

// lateReplica redrives dead letters and rebuilds the index through a member of the cluster whose
// replica is late: it lacks the deletions of posts that became dead letters, and everything after
// them.
func (s *site) lateReplica(*rand.Rand) failure {
	var (
		member          *natstest.TestServer
		posts           []simnet.Post
		gone            = map[string]string{} // revisions of the deletions, by the post's key
		before, deleted uint64                // messages: the last one before, and that of the last deletion
		catchUp         []func()
		redrive, remake *process.Program
	)
	return failure{
		uses: []string{"owner", "postgres", "nats", "indexer", "indexer-nats", "ingest", "standby", "jetstream"},
		steps: []step{
			eventually(func() bool {
				ready, _ := s.indexer.Ready()
				_, before = s.last()
				return ready && before > 0
			}),
			once(0, func() {
				var rkeys []string
				for i := range deadPosts {
					rkeys = append(rkeys, atmos.NewTID(s.network.Now().UnixMicro(), uint(i+1)).String())
				}
				s.refuse(rkeys...)
				for i, did := range s.network.Active()[:deadPosts] {
					p, err := s.network.CreatePost(did, rkeys[i], simnet.NewPost(s.network.Now(), "buried", "art"))
					s.must(err)
					posts = append(posts, p)
				}
			}),
			eventually(func() bool { return s.deadLetters() >= deadPosts }),
			once(0, func() { s.refuse() }),
			eventually(func() bool {
				member = s.follower(stream.Posts, stream.DeadLetters)
				return member != nil
			}),
			once(0, func() {
				for _, name := range []string{stream.Posts, stream.DeadLetters} {
					catchUp = append(catchUp, member.MakeLate(s.t, name))
				}
			}),
			// A replica answers for itself only some time after its creation.
			eventually(func() bool {
				_, seq := s.last()
				return seq > 0 && s.lacks(member, seq)
			}),
			once(0, func() {
				for _, p := range posts[:deletedOfThem] {
					// The traffic may already have done that.
					if d, err := s.network.DeletePost(p.DID, p.Rkey); err == nil {
						gone[d.Rkey] = d.Rev
					}
				}
				redrive = s.tool(member.URL(), s.databaseURL(indexerRole, nil), "dlq", "redrive", "--reason", "rejected")
				remake = s.tool(member.URL(), s.databaseURL(ownerRole, nil), "rebuild")
			}),
			eventually(func() bool {
				found := 0
				s.eachEvent(before, func(seq uint64, ev *event.Event) {
					if rev, ours := gone[ev.Rkey]; ours && ev.Kind == event.KindDelete && ev.Rev == rev {
						found, deleted = found+1, seq
					}
				})
				var checkpoint uint64
				s.scan("SELECT seq FROM tagstream.checkpoint", &checkpoint)
				return found > 0 && found >= len(gone) && checkpoint >= deleted
			}),
			s.succeeds(&redrive),
			s.succeeds(&remake),
			eventually(func() bool { return s.lacks(member, deleted) }), // still late
			once(0, func() {
				s.log.Add(lateReplica)
				for _, fn := range catchUp {
					fn()
				}
			}),
		},
	}
}

// refuse makes Postgres refuse posts with these keys, like data that it cannot store; without keys
// it accepts everything again.
func (s *site) refuse(rkeys ...string) {
	if len(rkeys) == 0 {
		s.exec("DROP TRIGGER refuse ON tagstream.posts")
		return
	}
	s.exec(fmt.Sprintf(`CREATE OR REPLACE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.rkey IN ('%s') THEN RAISE EXCEPTION 'refused' USING ERRCODE = '22000'; END IF;
		RETURN NEW;
	END $$`, strings.Join(rkeys, "', '")))
	s.exec("CREATE OR REPLACE TRIGGER refuse BEFORE INSERT OR UPDATE ON tagstream.posts FOR EACH ROW EXECUTE FUNCTION public.refuse()")
}

// deadLetters returns their number, 0 if it is unknown.
func (s *site) deadLetters() (n int) {
	_ = s.withStream(func(js jetstream.JetStream) error { // it may be unavailable
		seqs, err := stream.DeadLetterSeqs(s.t.Context(), js)
		n = len(seqs)
		return err
	})
	return n
}

// succeeds runs a command until it succeeds.
func (s *site) succeeds(tool **process.Program) step {
	tries, since := 0, time.Time{}
	return eventually(func() bool {
		p := *tool
		code, ended := p.Ended()
		switch {
		case ended && tries > 0 && code == 0:
			return true
		case !ended && time.Since(since) > toolLimit:
			p.Kill()
			return false
		case !ended || time.Since(since) < time.Second:
			return false
		}
		if tries++; tries > rebuildTries {
			s.t.Fatalf("%s keeps failing: %s", p.Name, p.Tail())
		}
		since = time.Now()
		s.must(p.Start())
		return false
	})
}
