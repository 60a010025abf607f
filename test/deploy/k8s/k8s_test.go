package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/testkit/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestOverlays renders and checks what users apply.
func TestOverlays(t *testing.T) {
	t.Parallel()
	secrets := renderSecrets(t)
	require.Empty(t, documentProblems(t, secrets))
	for _, c := range []struct {
		overlay    string
		components []string
	}{
		{"overlays/small", nil},
		{"overlays/replicated", nil},
		{"overlays/replicated", []string{"components/ingress", "components/monitoring", "components/rebuild"}},
	} {
		t.Run(strings.Join(append([]string{filepath.Base(c.overlay)}, c.components...), "+"), func(t *testing.T) {
			t.Parallel()
			require.Empty(t, problems(t, renderWith(t, c.overlay, c.components...), parse(t, secrets)))
		})
	}
}

// problems returns all problems of a rendering.
func problems(t testing.TB, text string, secrets manifests) []string {
	t.Helper()
	out := documentProblems(t, text)
	if len(out) > 0 {
		return out // the rules need well-formed objects
	}
	all := parse(t, text)
	for _, rule := range []func(testing.TB, manifests) []string{podProblems, referenceProblems, networkProblems, databaseProblems} {
		out = append(out, rule(t, all)...)
	}
	return append(out, secretProblems(t, all, secrets)...)
}

func documentProblems(t testing.TB, text string) []string {
	t.Helper()
	var out []string
	for i, document := range documents(text) {
		for _, p := range schemaProblems(t, document) {
			out = append(out, fmt.Sprintf("document %d: %s", i, p))
		}
	}
	return out
}

// TestPlanted plants mistakes in a rendering, one at a time. Each must be found and reported
// correctly.
func TestPlanted(t *testing.T) {
	t.Parallel()
	secrets := parse(t, renderSecrets(t))
	whole := renderWith(t, "overlays/replicated", "components/ingress", "components/monitoring")
	for _, c := range []struct {
		name, kind, object string
		old, new           string
		want               string
	}{
		{"misspelt field", "Deployment", "api", "terminationGracePeriodSeconds:", "terminationGraceSeconds:", "terminationGraceSeconds"},
		{"wrong type", "HorizontalPodAutoscaler", "api", "minReplicas: 2", "minReplicas: two", "minReplicas"},
		{"missing field", "Ingress", "api", "pathType: Prefix", "", "pathType"},
		{"misspelt field of the operator's", "Cluster", "postgres", "connectionLimit: 80", "connectionsLimit: 80", "connectionsLimit"},
		{"value that the operator's schema does not know", "Cluster", "postgres", "podAntiAffinityType: preferred", "podAntiAffinityType: [often]", "podAntiAffinityType"},
		{"misspelt field of a monitor", "PodMonitor", "programs", "port: ops", "prot: ops", "prot"},
		{"writable root", "Deployment", "ingest", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "can write to its root"},
		{"root user", "Deployment", "ingest", "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"},
		{"capabilities", "Deployment", "indexer", "- ALL", "- NET_RAW", "unrestricted capabilities"},
		{"no seccomp profile", "Job", "migrate", "type: RuntimeDefault", "type: Unconfined", "seccompProfile"},
		{"no limit", "Deployment", "indexer", "memory: 512Mi", "ephemeral-storage: 512Mi", "has no limit of memory"},
		{"Go may use more than there is", "Deployment", "indexer", "value: 400MiB", "value: 600MiB", "GOMEMLIMIT"},
		{"token", "Deployment", "api", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "has a token"},
		{"account that an upgrade leaves out", "ServiceAccount", "migrate", "app.kubernetes.io/name: migrate", "app.kubernetes.io/name: migration", "its account is not applied"},
		{"settings that an upgrade leaves out", "ConfigMap", "settings", "app.kubernetes.io/name: settings", "app.kubernetes.io/name: configuration", "its settings are not applied"},
		{"variables of Services", "Deployment", "api", "enableServiceLinks: false", "enableServiceLinks: true", "enableServiceLinks"},
		{"wrong probe", "Deployment", "api", "path: /readyz", "path: /ready", "readiness"},
		{"port of another program", "Deployment", "ingest", "containerPort: 9091", "containerPort: 9092", "9091"},
		{"unknown setting", "Deployment", "api", "name: TAGSTREAM_CURSOR_KEYS_FILE", "name: TAGSTREAM_CURSOR_KEY_FILE", "TAGSTREAM_CURSOR_KEY_FILE: unknown variable"},
		{"unknown setting for all", "ConfigMap", "settings", "TAGSTREAM_LOG_LEVEL", "TAGSTREAM_LOGLEVEL", "TAGSTREAM_LOGLEVEL: unknown variable"},
		{"setting of another program", "Deployment", "api", "name: TAGSTREAM_CURSOR_KEYS_FILE", "name: TAGSTREAM_NATS_NKEY_FILE", "does not read TAGSTREAM_NATS_NKEY_FILE"},
		{"image that is not made", "Deployment", "api", "image: tagstream/api:", "image: tagstream/web:", "tagstream/web"},
		{"file that is not mounted", "Deployment", "indexer", "path: nats_indexer.nk", "path: indexer.nk", "nats_indexer.nk is not mounted"},
		{"secret that is not made", "Deployment", "ingest", "name: nats-ingest", "name: nats-ingester", "nats-ingester"},
		{"key that the secret lacks", "Deployment", "ingest", "key: nkey", "key: seed", "has no key seed"},
		{"role that is not made", "Deployment", "indexer", "tagstream_indexer@", "tagstream_writer@", "tagstream_writer"},
		{"writer on a standby", "Deployment", "indexer", "@postgres-rw:", "@postgres-ro:", "does not write to the primary"},
		{"more connections than the role may have", "HorizontalPodAutoscaler", "api", "maxReplicas: 8", "maxReplicas: 10", "connections"},
		{"parameter that drifted", "Cluster", "postgres", `jit: "off"`, `jit: "on"`, "jit"},
		{"parameter that the operator keeps to itself", "Cluster", "postgres", `jit: "off"`, "jit: \"off\"\n      port: \"5433\"", "refuses port"},
		{"selector of nothing", "Service", "api", "selector:\n    app.kubernetes.io/name: api", "selector:\n    app.kubernetes.io/name: web", "selects no pod"},
		{"port of nothing", "Service", "api", "targetPort: http", "targetPort: web", "web"},
		{"budget of nothing", "PodDisruptionBudget", "indexer", "matchLabels:\n      app.kubernetes.io/name: indexer", "matchLabels:\n      app.kubernetes.io/name: index", "selects no pod"},
		{"selector that misses its own pods", "Deployment", "api", "matchLabels:\n      app.kubernetes.io/name: api", "matchLabels:\n      app.kubernetes.io/name: web", "selects no pod"},
		{"scaler of nothing", "HorizontalPodAutoscaler", "api", "kind: Deployment\n    name: api", "kind: Deployment\n    name: web", "there is no web"},
		{"policy for nothing", "NetworkPolicy", "migrate", "app.kubernetes.io/name: migrate", "app.kubernetes.io/name: migration", "selects no pod"},
		{"policy that names nothing", "NetworkPolicy", "nats", "app.kubernetes.io/name: indexer", "app.kubernetes.io/name: index", "selects no pod"},
		{"the api sees NATS", "NetworkPolicy", "nats", "app.kubernetes.io/name: ingest", "app.kubernetes.io/name: api", "ingest cannot reach nats:4222"},
		{"ingest sees Postgres", "NetworkPolicy", "ingest", "app.kubernetes.io/component: nats", "cnpg.io/cluster: postgres", "nats"},
		{"the indexer reaches the world", "NetworkPolicy", "indexer", "port: 5432\n    to:\n    - podSelector:\n        matchLabels:\n          cnpg.io/cluster: postgres", "port: 443", "indexer can reach the world"},
		{"nothing is denied", "NetworkPolicy", "default", "- Ingress\n", "", "denies"},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			split := documents(whole)
			at := slices.IndexFunc(split, func(document string) bool {
				o := parse(t, document)[0]
				return o.GetKind() == c.kind && (o.GetName() == c.object || strings.HasPrefix(o.GetName(), c.object+"-"))
			})
			require.GreaterOrEqual(t, at, 0, "there is no %s %s", c.kind, c.object)
			require.Contains(t, split[at], c.old)
			split[at] = strings.Replace(split[at], c.old, c.new, 1)
			require.Contains(t, strings.Join(problems(t, strings.Join(split, "\n---\n"), secrets), "\n"), c.want)
		})
	}
}

// The docs name every secret and label that users must create.
func TestDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "docs/kubernetes.md"))
	require.NoError(t, err)
	for _, object := range parse(t, renderSecrets(t)) {
		require.Contains(t, string(text), "`"+object.GetName()+"`")
	}
	for _, name := range []string{callsAPI, readsMetrics} {
		require.Contains(t, string(text), name+"=true")
	}
}
