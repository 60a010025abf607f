package k8s

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kubernetes "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	psa "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// sources are modules with schemas. Only these files of them are used, so this module does not
// require them; sum is what go.sum would have.
//
// The schemas of Kubernetes are those of the oldest version that the manifests support: stable
// fields remain in later ones.
var sources = []struct{ module, sum, files string }{
	{"sigs.k8s.io/kubectl-validate@v0.0.4", "h1:tGKuv0awYHn11Cb6KPsZKxUmHgavF46K3NvVH0Nse9U=", "pkg/openapiclient/builtins/1.30/*/*.json"},
	{"sigs.k8s.io/kubectl-validate@v0.0.4", "h1:tGKuv0awYHn11Cb6KPsZKxUmHgavF46K3NvVH0Nse9U=", "pkg/openapiclient/builtins/1.30/apis/*/*.json"},
	{operatorModule, operatorSum, "config/crd/bases/*_clusters.yaml"},
	{"github.com/prometheus-operator/prometheus-operator@v0.85.0", "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=", "example/prometheus-operator-crd/*_podmonitors.yaml"},
}

const (
	operatorModule = "github.com/cloudnative-pg/cloudnative-pg@v1.30.0"
	operatorSum    = "h1:fnhVq44xXx97MNiuvJsPrX1vSjYbgdyBK5MSGfdHdp0="
)

// schemas caches the schemas of requested kinds.
var schemas struct {
	mu     sync.Mutex
	files  []string                // guarded by mu; all files of the sources
	byKind map[string]*spec.Schema // guarded by mu; by apiVersion and kind
}

// schemaProblems returns a document's violations of its schema. Unknown fields and duplicate keys
// are problems, too.
func schemaProblems(t testing.TB, document string) []string {
	t.Helper()
	text, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil {
		return []string{err.Error()}
	}
	var object unstructured.Unstructured
	if err := object.UnmarshalJSON(text); err != nil {
		return []string{err.Error()}
	}
	schema, err := schemaOf(object.GroupVersionKind())
	require.NoError(t, err)
	var out []string
	for _, err := range validate.NewSchemaValidator(schema, nil, object.GetKind()+" "+object.GetName(), strfmt.Default).Validate(object.Object).Errors {
		out = append(out, err.Error())
	}
	return out
}

func schemaOf(kind kubernetes.GroupVersionKind) (*spec.Schema, error) {
	schemas.mu.Lock()
	defer schemas.mu.Unlock()
	if schemas.byKind == nil {
		for _, source := range sources {
			dir, err := moduleDir(source.module, source.sum)
			if err != nil {
				return nil, err
			}
			files, err := filepath.Glob(filepath.Join(dir, source.files))
			if err != nil || len(files) == 0 {
				return nil, fmt.Errorf("%s has no files %s: %w", source.module, source.files, err)
			}
			schemas.files = append(schemas.files, files...)
		}
		schemas.byKind = map[string]*spec.Schema{}
	}
	if schema := schemas.byKind[kind.String()]; schema != nil {
		return schema, nil
	}
	// Files are called apps/v1.json, v1.json, or GROUP_clusters.yaml.
	ours := strings.TrimPrefix(kind.Group+"/"+kind.Version+".json", "/")
	for _, file := range schemas.files {
		var schema *spec.Schema
		var err error
		switch {
		case strings.HasSuffix(file, "/"+ours) && (kind.Group != "" || filepath.Base(filepath.Dir(file)) == "api"):
			schema, err = builtin(file, kind)
		case strings.HasPrefix(filepath.Base(file), kind.Group+"_"+strings.ToLower(kind.Kind)):
			schema, err = custom(file, kind)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if schema != nil {
			schemas.byKind[kind.String()] = schema
			return schema, nil
		}
	}
	return nil, fmt.Errorf("there is no schema of %s", kind)
}

// builtin reads a kind's schema from a file of Kubernetes' OpenAPI.
func builtin(file string, kind kubernetes.GroupVersionKind) (*spec.Schema, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var api struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(text, &api); err != nil {
		return nil, err
	}
	for name, schema := range api.Components.Schemas {
		if strings.HasSuffix(name, "."+kind.Version+"."+kind.Kind) && schema.Extensions["x-kubernetes-group-version-kind"] != nil {
			return strict(*schema, api.Components.Schemas), nil
		}
	}
	return nil, nil
}

// custom reads a kind's schema from a CustomResourceDefinition.
func custom(file string, kind kubernetes.GroupVersionKind) (*spec.Schema, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var definition struct {
		Spec struct {
			Versions []struct {
				Name   string `json:"name"`
				Schema struct {
					OpenAPIV3Schema spec.Schema `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &definition); err != nil {
		return nil, err
	}
	for _, version := range definition.Spec.Versions {
		if version.Name == kind.Version {
			return strict(version.Schema.OpenAPIV3Schema, nil), nil
		}
	}
	return nil, nil
}

// strict returns the schema with its references resolved, in which objects allow only listed
// properties.
func strict(s spec.Schema, named map[string]*spec.Schema) *spec.Schema {
	if ref := s.Ref.String(); ref != "" {
		return strict(*named[strings.TrimPrefix(ref, "#/components/schemas/")], named)
	}
	// The library interprets these differently from Kubernetes.
	if s.Format == "int-or-string" || s.Format == "byte" {
		s.Format = ""
	}
	if len(s.Properties) > 0 {
		properties := map[string]spec.Schema{}
		for name, property := range s.Properties {
			properties[name] = *strict(property, named)
		}
		s.Properties = properties
		if keeps, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); !keeps && s.AdditionalProperties == nil {
			s.AdditionalProperties = &spec.SchemaOrBool{Allows: false}
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		s.Items = &spec.SchemaOrArray{Schema: strict(*s.Items.Schema, named)}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		s.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: strict(*s.AdditionalProperties.Schema, named)}
	}
	// Kubernetes writes a reference with a description as allOf with one element.
	if len(s.AllOf) == 1 && named != nil {
		s.AllOf = []spec.Schema{*strict(s.AllOf[0], named)}
	}
	return &s
}

// moduleDir downloads a module if needed, and returns its folder.
func moduleDir(module, sum string) (string, error) {
	get := exec.Command("go", "mod", "download", "-json", module) //nolint:gosec // a constant
	get.Dir, get.Env = os.TempDir(), append(os.Environ(), "GOWORK=off")
	out, err := get.Output()
	var answer struct{ Dir, Sum, Error string }
	if err := errors.Join(err, json.NewDecoder(bytes.NewReader(out)).Decode(&answer)); err != nil {
		return "", fmt.Errorf("download %s: %w: %s", module, err, answer.Error)
	}
	if answer.Sum != sum {
		return "", fmt.Errorf("%s has the sum %s, not %s", module, answer.Sum, sum)
	}
	return answer.Dir, nil
}

// standardProblems returns the objections of Kubernetes' admission to a pod in a namespace that
// enforces the restricted standard.
func standardProblems(t testing.TB, meta *metav1.ObjectMeta, spec *corev1.PodSpec) []string {
	t.Helper()
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	require.NoError(t, err)
	var out []string
	for _, result := range evaluator.EvaluatePod(psa.LevelVersion{Level: psa.LevelRestricted, Version: psa.LatestVersion()}, meta, spec) {
		if !result.Allowed {
			out = append(out, fmt.Sprintf("%s (%s)", result.ForbiddenReason, result.ForbiddenDetail))
		}
	}
	return out
}
