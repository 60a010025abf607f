package simnet_test

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/test/simnet"
)

// testTimeout bounds a whole test with real servers, including a first build.
const testTimeout = 2 * time.Minute

// start runs a real server on the network and stops it with the test. The test fails if the server
// logs a failed verification or a panic, unless the test reads the warnings itself.
func start(ctx context.Context, t *testing.T, n *simnet.Network) *simnet.Jetstream {
	t.Helper()
	binary, err := simnet.BuildJetstream(ctx, "")
	require.NoError(t, err)
	j, err := n.StartJetstream(ctx, simnet.JetstreamConfig{Binary: binary, DataDir: filepath.Join(t.TempDir(), "jetstream")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Stop()) })
	return j
}

// limited returns a context that bounds a test's time.
func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// read reads the server's events, from its archive on, with the official client until done returns
// true.
func read(ctx context.Context, t *testing.T, j *simnet.Jetstream, done func(jetstream.Event) bool) {
	t.Helper()
	client, err := jetstream.Subscribe(j.URL(), jetstream.WithAfterSeq(0))
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	for batch, err := range client.Events(ctx) {
		require.NoError(t, err)
		for _, event := range batch.Events() {
			if done(event) {
				return
			}
		}
	}
	require.NoError(t, ctx.Err(), "events ended before everything was seen")
}

// describe formats an event as one line, without values that differ from run to run.
func describe(event jetstream.Event) string {
	switch event.Kind {
	case jetstream.KindCommit:
		return fmt.Sprintf("%s %s %s/%s %s %s", event.Commit.Operation, event.DID, event.Commit.Collection, event.Commit.Rkey, event.Commit.Rev, event.Commit.CID)
	case jetstream.KindAccount:
		return fmt.Sprintf("account %s %t %s %d", event.DID, event.Account.Active, event.Account.Status, event.Account.Seq)
	case jetstream.KindSync:
		return fmt.Sprintf("sync %s %s", event.DID, event.Sync.Rev)
	default:
		return fmt.Sprintf("%s %s", event.Kind, event.DID)
	}
}

// expected returns the lines of describe for the events of a log entry.
func expected(entry simnet.Entry) []string {
	var lines []string
	switch entry.Kind {
	case simnet.KindAccount:
		return []string{fmt.Sprintf("account %s %t %s %d", entry.DID, entry.Active, entry.Status, entry.Seq)}
	case simnet.KindIdentity:
		return []string{"identity " + entry.DID}
	case simnet.KindSync:
		if entry.Repeated {
			return nil
		}
		lines = append(lines, fmt.Sprintf("sync %s %s", entry.DID, entry.Rev))
	}
	for _, op := range entry.Ops {
		lines = append(lines, fmt.Sprintf("%s %s %s/%s %s %s", op.Action, entry.DID, op.Collection, op.Rkey, entry.Rev, op.CID))
	}
	return lines
}

// note returns a small post.
func note(n *simnet.Network, text string, tags ...string) map[string]any {
	return simnet.NewPost(n.Now(), text, tags...)
}

func TestEventsArriveThroughRealServer(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		emit func(t *testing.T, n *simnet.Network, did string)
	}{
		{"create update delete", func(t *testing.T, n *simnet.Network, did string) {
			post, err := n.CreatePost(did, "", note(n, "one", "art"))
			require.NoError(t, err)
			_, err = n.UpdatePost(did, post.Rkey, note(n, "two", "photo"))
			require.NoError(t, err)
			_, err = n.DeletePost(did, post.Rkey)
			require.NoError(t, err)
			_, err = n.CreatePost(did, post.Rkey, note(n, "again", "art"))
			require.NoError(t, err)
		}},
		{"several operations in one commit", func(t *testing.T, n *simnet.Network, did string) {
			post, err := n.CreatePost(did, "", note(n, "one"))
			require.NoError(t, err)
			_, err = n.Commit(did, simnet.Op{Action: simnet.Create, Record: note(n, "two")}, simnet.Op{Action: simnet.Delete, Rkey: post.Rkey},
				simnet.Op{Action: simnet.Create, Collection: "app.bsky.feed.like", Record: note(n, "no post")})
			require.NoError(t, err)
		}},
		{"empty commit", func(t *testing.T, n *simnet.Network, did string) {
			_, err := n.Commit(did)
			require.NoError(t, err)
			_, err = n.CreatePost(did, "", note(n, "after"))
			require.NoError(t, err)
		}},
		{"account comes and goes", func(t *testing.T, n *simnet.Network, did string) {
			newcomer, err := n.CreateAccount()
			require.NoError(t, err)
			_, err = n.CreatePost(newcomer, "", note(n, "hello"))
			require.NoError(t, err)
			for _, status := range []string{"deactivated", "suspended", "takendown", "throttled", "deleted", "invented"} {
				_, err = n.SetAccountStatus(newcomer, false, status)
				require.NoError(t, err)
				_, err = n.CreatePost(newcomer, "", note(n, "while "+status))
				require.NoError(t, err)
				_, err = n.SetAccountStatus(newcomer, true, "")
				require.NoError(t, err)
			}
		}},
		{"sync after divergence", func(t *testing.T, n *simnet.Network, did string) {
			kept, err := n.CreatePost(did, "", note(n, "kept", "art"))
			require.NoError(t, err)
			gone, err := n.CreatePost(did, "", note(n, "gone", "art"))
			require.NoError(t, err)
			entry, err := n.Sync(did, simnet.Op{Action: simnet.Delete, Rkey: gone.Rkey}, simnet.Op{Action: simnet.Create, Record: note(n, "silent", "art")})
			require.NoError(t, err)
			require.Len(t, entry.Ops, 2)
			require.Equal(t, kept.URI, entry.Ops[0].URI)
			require.Equal(t, kept.CID, entry.Ops[0].CID)
		}},
		{"sync without a change", func(t *testing.T, n *simnet.Network, did string) {
			_, err := n.CreatePost(did, "", note(n, "kept"))
			require.NoError(t, err)
			entry, err := n.Sync(did)
			require.NoError(t, err)
			require.True(t, entry.Repeated)
		}},
		{"sync to an empty repository", func(t *testing.T, n *simnet.Network, did string) {
			post, err := n.CreatePost(did, "", note(n, "gone"))
			require.NoError(t, err)
			entry, err := n.Sync(did, simnet.Op{Action: simnet.Delete, Rkey: post.Rkey})
			require.NoError(t, err)
			require.False(t, entry.Repeated)
			require.Empty(t, entry.Ops)
		}},
		{"malformed records", func(t *testing.T, n *simnet.Network, did string) {
			for _, kind := range simnet.Malformations() {
				_, err := n.CreateMalformed(did, kind)
				require.NoError(t, err, kind)
			}
		}},
		{"a burst of one account", func(t *testing.T, n *simnet.Network, did string) {
			for range 200 {
				_, err := n.CreatePost(did, "", note(n, "burst"))
				require.NoError(t, err)
			}
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := limited(t)
			n, err := simnet.New(simnet.Config{Seed: 7, Accounts: 3})
			require.NoError(t, err)
			j := start(ctx, t, n)
			c.emit(t, n, n.DIDs()[1])
			require.NoError(t, n.Await(ctx, j))

			var want, got []string
			for _, entry := range n.Log() {
				want = append(want, expected(entry)...)
			}
			read(ctx, t, j, func(event jetstream.Event) bool {
				got = append(got, describe(event))
				return len(got) == len(want)
			})
			// All events except the newcomer's are of one account, and the order within an account
			// is kept.
			require.Equal(t, want, got)
			require.Empty(t, j.Warnings())
		})
	}
}

// fold applies events like a consumer: a sync or a deletion of the account drops its records.
func fold(records map[string]string, event jetstream.Event) {
	switch {
	case event.Kind == jetstream.KindCommit && event.Commit.Operation == jetstream.OpDelete:
		delete(records, event.DID+"/"+event.Commit.Collection+"/"+event.Commit.Rkey)
	case event.Kind == jetstream.KindCommit:
		records[event.DID+"/"+event.Commit.Collection+"/"+event.Commit.Rkey] = event.Commit.CID
	case event.Kind == jetstream.KindSync, event.Kind == jetstream.KindAccount && event.Account.Status == "deleted":
		maps.DeleteFunc(records, func(key, _ string) bool { return strings.HasPrefix(key, event.DID+"/") })
	}
}

// stored returns the contents of the network's repositories, without deleted accounts.
func stored(t *testing.T, n *simnet.Network) map[string]string {
	t.Helper()
	deleted := map[string]bool{}
	for _, entry := range n.Log() {
		if entry.Kind == simnet.KindAccount {
			deleted[entry.DID] = entry.Status == "deleted"
		}
	}
	records := map[string]string{}
	for _, did := range n.DIDs() {
		ops, err := n.Records(did)
		require.NoError(t, err)
		for _, op := range ops {
			if !deleted[did] {
				records[did+"/"+op.Collection+"/"+op.Rkey] = op.CID
			}
		}
	}
	return records
}

func TestTrafficFoldsToRepositories(t *testing.T) {
	t.Parallel()
	const seed = 11
	ctx := limited(t)
	n, err := simnet.New(simnet.Config{Seed: seed, Accounts: 40})
	require.NoError(t, err)
	require.NoError(t, simnet.Traffic{Count: 300, Seed: seed, TagsOnly: true, Spread: time.Hour}.Run(ctx, n))
	servers := []*simnet.Jetstream{start(ctx, t, n), start(ctx, t, n)}
	require.NoError(t, simnet.Traffic{Count: 1500, Seed: seed + 1}.Run(ctx, n))
	want := stored(t, n)
	for _, j := range servers {
		require.NoError(t, n.Await(ctx, j), "seed %d", seed)
		got := map[string]string{}
		read(ctx, t, j, func(event jetstream.Event) bool {
			fold(got, event)
			return len(got) == len(want) && maps.Equal(got, want)
		})
		require.Empty(t, j.Warnings(), "seed %d", seed)
	}
}

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	ctx := limited(t)
	n, err := simnet.New(simnet.Config{Seed: 3, Accounts: 4})
	require.NoError(t, err)
	j := start(ctx, t, n)
	emit := func(text string) {
		for _, did := range n.DIDs() {
			_, err := n.CreatePost(did, "", note(n, text))
			require.NoError(t, err)
		}
	}
	url := j.URL()
	emit("before a clean stop")
	require.NoError(t, n.Await(ctx, j))
	require.NoError(t, j.Stop())
	emit("while stopped")
	require.NoError(t, j.Restart(ctx))
	require.NoError(t, n.Await(ctx, j))
	emit("before a kill")
	require.NoError(t, n.Await(ctx, j))
	j.Kill()
	emit("while dead")
	require.NoError(t, j.Restart(ctx))
	require.NoError(t, n.Await(ctx, j))
	j.Relay().Disconnect()
	emit("after the relay cut the connection")
	require.NoError(t, n.Await(ctx, j))

	require.Equal(t, url, j.URL(), "a restart must keep the address")
	want, got := stored(t, n), map[string]string{}
	read(ctx, t, j, func(event jetstream.Event) bool {
		fold(got, event)
		return maps.Equal(got, want)
	})
	warnings := slices.DeleteFunc(j.Warnings(), func(line string) bool { return strings.Contains(line, `"msg":"reconnecting"`) })
	require.Empty(t, warnings)
	require.NoError(t, j.Stop())
	require.NoError(t, j.Stop(), "stopping twice must be harmless")
}

func TestAwaitNamesMissingEvents(t *testing.T) {
	t.Parallel()
	ctx := limited(t)
	n, err := simnet.New(simnet.Config{Seed: 5, Accounts: 1})
	require.NoError(t, err)
	j := start(ctx, t, n)
	_, err = n.CreatePost(n.DIDs()[0], "", note(n, "seen"))
	require.NoError(t, err)
	require.NoError(t, n.Await(ctx, j))
	j.Relay().Close()
	post, err := n.CreatePost(n.DIDs()[0], "", note(n, "unseen"))
	require.NoError(t, err)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	err = n.Await(short, j)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, post.DID)
	require.ErrorContains(t, err, post.Rev)
}

func TestStartJetstreamReportsExit(t *testing.T) {
	t.Parallel()
	ctx := limited(t)
	n, err := simnet.New(simnet.Config{Seed: 5, Accounts: 1})
	require.NoError(t, err)
	binary, err := simnet.BuildJetstream(ctx, "")
	require.NoError(t, err)
	_, err = n.StartJetstream(ctx, simnet.JetstreamConfig{Binary: binary, DataDir: t.TempDir(), Args: []string{"--no-such-flag"}})
	require.ErrorIs(t, err, simnet.ErrNotRunning)
	_, err = n.StartJetstream(ctx, simnet.JetstreamConfig{Binary: filepath.Join(t.TempDir(), "absent"), DataDir: t.TempDir()})
	require.Error(t, err)
}
