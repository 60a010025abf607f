package simnet

import (
	"net/http"

	"github.com/jcalabro/atmos/cbor"
)

// maxActors bounds the accounts of one request.
const maxActors = 25

// getProfiles answers like an AppView (app.bsky.actor.getProfiles). It omits inactive and unknown
// accounts.
func (r *Relay) getProfiles(w http.ResponseWriter, req *http.Request) {
	actors := req.URL.Query()["actors"]
	if len(actors) == 0 || len(actors) > maxActors {
		writeError(w, "InvalidRequest", "actors: 1 to 25")
		return
	}
	profiles := []any{}
	for _, did := range actors {
		if p := r.network.profileView(did); p != nil {
			profiles = append(profiles, p)
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"profiles": profiles})
}

// profileView returns what an AppView shows of an account, nil if it shows nothing.
func (n *Network) profileView(did string) map[string]any {
	n.mu.Lock()
	defer n.mu.Unlock()
	acc, ok := n.accounts[did]
	if !ok || !acc.active {
		return nil
	}
	view := map[string]any{"did": did, "handle": acc.handle, "labels": []any{}}
	for _, op := range acc.repo.records() {
		if op.Collection != ProfileCollection || op.Rkey != ProfileRkey {
			continue
		}
		value, err := cbor.Unmarshal(op.Record)
		record, ok := value.(map[string]any)
		if err != nil || !ok {
			break
		}
		view["displayName"] = record["displayName"]
		labels, _ := record["labels"].(map[string]any)
		values, _ := labels["values"].([]any)
		var shown []any
		for _, v := range values {
			label, _ := v.(map[string]any)
			shown = append(shown, map[string]any{"src": did, "uri": op.URI, "cid": op.CID, "val": label["val"], "cts": "2026-01-01T00:00:00.000Z"})
		}
		if shown != nil {
			view["labels"] = shown
		}
	}
	return view
}
