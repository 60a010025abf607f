package k8s

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const root = "../../.."

// render is `kubectl kustomize`.
func render(t testing.TB, dir string) string {
	t.Helper()
	made, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err)
	text, err := made.AsYaml()
	require.NoError(t, err)
	return string(text)
}

// renderWith renders an overlay with components, like a user's overlay.
func renderWith(t testing.TB, overlay string, components ...string) string {
	t.Helper()
	dir := t.TempDir()
	here := func(path string) string {
		target, err := filepath.Abs(filepath.Join(root, "deploy/k8s", path))
		require.NoError(t, err)
		relative, err := filepath.Rel(dir, target)
		require.NoError(t, err)
		return relative
	}
	own := map[string]any{
		"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "tagstream",
		"resources": []string{here(overlay)},
		"images":    []map[string]string{{"name": "tagstream/indexer", "newTag": "latest"}},
	}
	for i, c := range components {
		components[i] = here(c)
	}
	own["components"] = components
	text, err := yaml.Marshal(own)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), text, 0o600))
	return render(t, dir)
}

// renderSecrets makes secrets and renders them, in a copy of the files.
func renderSecrets(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"k8s/secrets/kustomization.yaml", "nats/kustomization.yaml", "nats/users.conf"} {
		text, err := os.ReadFile(filepath.Join(root, "deploy", name))
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	run := exec.CommandContext(t.Context(), "go", "run", "./deploy/secrets", "-out", filepath.Join(dir, "k8s/secrets/files"), "-program-user=-1")
	run.Dir = root
	run.Env = append(os.Environ(), "GOWORK=off")
	out, err := run.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return render(t, filepath.Join(dir, "k8s/secrets"))
}

// manifests are the objects of one rendering.
type manifests []*unstructured.Unstructured

func parse(t testing.TB, text string) manifests {
	t.Helper()
	var all manifests
	for _, document := range documents(text) {
		object := &unstructured.Unstructured{}
		text, err := yaml.YAMLToJSON([]byte(document))
		require.NoError(t, err)
		require.NoError(t, object.UnmarshalJSON(text))
		all = append(all, object)
	}
	return all
}

func documents(text string) []string { return strings.Split(text, "\n---\n") }

// of returns the objects of a kind as their Go type.
func of[T any](t testing.TB, all manifests, kind string) []T {
	t.Helper()
	var out []T
	for _, object := range all {
		if object.GetKind() != kind {
			continue
		}
		var typed T
		require.NoError(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &typed), "%s %s", kind, object.GetName())
		out = append(out, typed)
	}
	return out
}

// get returns the object of that kind and name, or nil.
func (all manifests) get(kind, name string) *unstructured.Unstructured {
	for _, object := range all {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	return nil
}
