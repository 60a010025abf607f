package fault_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/fault"
	"github.com/tagstream/tagstream/pkg/testkit/natstest"
	"github.com/tagstream/tagstream/pkg/testkit/poll"
)

const (
	limit   = time.Minute
	patient = 500 * time.Millisecond // with an answer that was lost
)

func TestNATS(t *testing.T) {
	t.Parallel()
	server := natstest.Server(t, natstest.Listen())
	direct := server.JetStream(t)
	for _, form := range fault.Forms {
		for _, how := range fault.Breaks {
			t.Run(fmt.Sprint(form, " ", how), func(t *testing.T) {
				t.Parallel()
				name := strings.NewReplacer(" ", "_").Replace(fmt.Sprint(form, how))
				_, err := direct.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}})
				require.NoError(t, err)
				var log fault.Log
				p := fault.New(t, fault.NATS, strings.TrimPrefix(server.URL(), "nats://"), &log)
				nc, err := nats.Connect("nats://"+p.Addr(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectBufSize(-1))
				require.NoError(t, err)
				defer nc.Close()
				js, err := jetstream.New(nc)
				require.NoError(t, err)
				publish := func() error {
					ctx, cancel := context.WithTimeout(t.Context(), patient)
					defer cancel()
					_, err := js.Publish(ctx, name+".x", []byte("payload\r\nPUB "+name+".x 1\r\n"), jetstream.WithRetryAttempts(0))
					return err
				}
				stored := func() uint64 {
					s, err := direct.Stream(t.Context(), name)
					require.NoError(t, err)
					return s.CachedInfo().State.Msgs
				}

				thenAt := uint64(99)
				a := p.Arm(fault.Fault{
					Kind: "publish", Match: fault.Publish(name + "."), Nth: 2, Form: form, Break: how,
					Then: func() { thenAt = stored() },
				})
				require.NoError(t, publish())
				require.Empty(t, log.Counts(), "only the second one must fail")
				require.Error(t, publish())
				<-a.Fired()
				effect := uint64(1)
				if form == fault.TookEffect {
					effect = 2
				}
				require.Equal(t, effect, thenAt)
				require.Equal(t, effect, stored())
				require.Equal(t, map[string]int{"publish, " + form.String(): 1}, log.Counts())
				// It fires once, and the client reconnects.
				poll.NoError(t, limit, publish)
			})
		}
	}
}

func TestPublishMatchesWhatStores(t *testing.T) {
	t.Parallel()
	match := fault.Publish("posts.")
	for _, tt := range []struct {
		name, subject, headers string
		want                   bool
	}{
		{"alone", "posts.create", "", true},
		{"inside a batch", "posts.create", "Nats-Batch-Id:x\r\nNats-Batch-Sequence:1\r\n", false},
		{"the end of a batch", "posts.create", "Nats-Batch-Id:x\r\nNats-Batch-Commit:1\r\n", true},
		{"elsewhere", "posts_dlq.1", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, match(fault.Op{Text: tt.subject, Body: []byte("NATS/1.0\r\n" + tt.headers + "\r\n{}")}))
		})
	}
}
