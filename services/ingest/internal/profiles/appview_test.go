package profiles

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/testkit/npmtest"
	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// appView is Bluesky's own AppView with a few accounts, whose records its own code indexed. It
// serves until the given URL has answered.
const appView = `
	import { once } from 'node:events'
	import getPort from 'get-port'
	import { Secp256k1Keypair } from '@atproto/crypto'
	import { IdResolver } from '@atproto/identity'
	import { jsonToLex, parseCid } from '@atproto/lex'
	import { AtUri } from '@atproto/syntax'
	import * as bsky from '@atproto/bsky'
	const { database, ready, accounts } = JSON.parse(process.argv[2])
	const db = new bsky.Database({ url: database, schema: 'appview', poolSize: 4 })
	await db.migrateToLatestOrThrow()
	const dataPort = await getPort(), port = await getPort(), plc = 'http://localhost:9'
	const data = await bsky.DataPlaneServer.create(db, dataPort, plc, globalThis.fetch)
	const index = new bsky.RepoSubscription({ service: 'ws://localhost:9', db, idResolver: new IdResolver({ plcUrl: plc }) }).indexingSvc
	const now = new Date().toISOString(), cid = parseCid('bafyreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy')
	for (const { did, handle, record, takedown } of accounts) {
		await db.db.insertInto('actor').values({ did, handle, indexedAt: now, takedownRef: takedown ?? null }).execute()
		if (record) await index.indexRecord(new AtUri('at://' + did + '/app.bsky.actor.profile/self'), cid, jsonToLex(record), 'create', now)
	}
	const config = new bsky.ServerConfig({
		version: 'test', port, didPlcUrl: plc, publicUrl: 'https://bsky.public.url', serverDid: 'did:example:appview', alternateAudienceDids: [],
		cdnUrl: 'https://cdn.bsky.app/img', dataplaneUrls: ['http://localhost:' + dataPort], dataplaneHttpVersion: '1.1',
		bsyncUrl: 'http://localhost:9', bsyncHttpVersion: '1.1', modServiceDid: 'did:example:mod', labelsFromIssuerDids: ['did:example:mod'],
		bigThreadUris: new Set(), maxThreadParents: 50, disableSsrfProtection: true, searchTagsHide: new Set(), searchTagsHideAll: new Set(),
		threadTagsBumpDown: new Set(), threadTagsHide: new Set(), visibilityTagHide: '', visibilityTagRankPrefix: '', debugFieldAllowedDids: new Set(),
		draftsLimit: 500, feedGenSkeletonTimeout: 5000, adminPasswords: ['x'], etcdHosts: [], irisFeedUris: new Set(), irisStagingFeedUris: new Set(),
	})
	const view = bsky.BskyAppView.create({ config, signingKey: await Secp256k1Keypair.create() })
	await view.start()
	await fetch(ready, { method: 'POST', body: 'http://localhost:' + port })
	console.log('{}')
	process.exit(0)`

// TestRealAppView decodes answers of Bluesky's own AppView.
func TestRealAppView(t *testing.T) {
	node := npmtest.Heavy(t, npmtest.Node22, "@atproto/bsky@0.0.280", "get-port@5.1.1")
	const avatar = "bafkreibme22gw2h7y2h7tg2fhqotaqjucnbc24deqo72b6mkl2egezxhvy"
	did := func(name string) string { return "did:plc:" + (name + strings.Repeat("a", 24))[:24] }
	record := func(more map[string]any) map[string]any {
		more["$type"], more["createdAt"] = "app.bsky.actor.profile", "2026-01-01T00:00:00.000Z"
		return more
	}
	optedOut := map[string]any{"$type": "com.atproto.label.defs#selfLabels", "values": []any{map[string]any{"val": event.NoUnauthenticated}}}
	accounts := []map[string]any{
		{"did": did("named"), "handle": "named.example", "record": record(map[string]any{"displayName": "Ada <b>\u202e", "description": "x",
			"avatar": map[string]any{"$type": "blob", "ref": map[string]any{"$link": avatar}, "mimeType": "image/jpeg", "size": 3}})},
		{"did": did("nameless"), "handle": "nameless.example"},
		{"did": did("unhandled"), "handle": nil, "record": record(map[string]any{"displayName": "Bo"})},
		{"did": did("optedout"), "handle": "out.example", "record": record(map[string]any{"displayName": "Cy", "labels": optedOut})},
		{"did": did("gone"), "handle": "gone.example", "takedown": "x", "record": record(map[string]any{"displayName": "Di"})},
	}
	asked := []string{did("missing")}
	for _, a := range accounts {
		asked = append(asked, a["did"].(string))
	}
	w := newWatch()
	ready := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		url, _ := io.ReadAll(r.Body)
		p := New(string(url), quick, slog.New(slog.DiscardHandler), w)
		for _, did := range asked {
			p.Offer(did)
		}
		run(t, p, w)
		for range asked {
			select {
			case <-w.settled:
			case <-r.Context().Done():
				t.Error("not all authors were answered")
				return
			}
		}
	})
	var out struct{}
	node.Run(t, appView, map[string]any{"database": pgtest.Database(t).URL, "ready": ready, "accounts": accounts}, &out)
	w.mu.Lock()
	defer w.mu.Unlock()
	got := map[string]event.Profile{}
	handles := map[string]string{}
	for _, e := range w.events {
		got[e.DID], handles[e.DID] = *e.Profile, e.Handle.Name
	}
	require.Equal(t, map[string]event.Profile{
		did("named"): {DisplayName: "Ada <b>", Avatar: avatar}, did("nameless"): {}, did("unhandled"): {DisplayName: "Bo"}, did("optedout"): {DisplayName: "Cy", OptedOut: true},
	}, got)
	require.Equal(t, map[string]string{did("named"): "named.example", did("nameless"): "nameless.example", did("unhandled"): "", did("optedout"): "out.example"}, handles)
	require.Equal(t, 2, w.fates[Absent], "one is taken down, and one never existed")
	require.Equal(t, map[Outcome]int{OK: 1}, w.outcomes)
}
