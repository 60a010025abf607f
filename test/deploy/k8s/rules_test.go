package k8s

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/tagstream/tagstream/pkg/service"
	api "github.com/tagstream/tagstream/services/api/cmd"
	indexer "github.com/tagstream/tagstream/services/indexer/cmd"
	ingest "github.com/tagstream/tagstream/services/ingest/cmd"
)

// workload is something with pods: ours, or made by an operator or a chart.
type workload struct {
	name     string
	labels   map[string]string
	ports    map[string]int32
	template *corev1.PodTemplateSpec // nil if it is not ours
	serves   bool                    // it keeps running, unlike a Job
}

// made are the pods made by others, with their documented labels.
var made = []workload{
	{name: "nats", labels: map[string]string{
		"app.kubernetes.io/name": "nats", "app.kubernetes.io/instance": "nats", "app.kubernetes.io/component": "nats"}},
	{name: "postgres", labels: map[string]string{"cnpg.io/cluster": "postgres", "cnpg.io/podRole": "instance"},
		ports: map[string]int32{"postgresql": 5432, "metrics": 9187, "status": 8000}},
}

// nameLabel is the common label of a workload's objects, with which an upgrade selects one workload
// at a time.
const nameLabel = "app.kubernetes.io/name"

// programs are the programs in the images.
var programs = map[string]service.Program{service.Ingest: ingest.Program(), service.Indexer: indexer.Program(), service.API: api.Program()}

// opsPorts are the ops ports in the images (deploy/Dockerfile).
var opsPorts = map[string]int32{service.Ingest: 9091, service.Indexer: 9092, service.API: 9093}

func workloads(t testing.TB, all manifests) []workload {
	t.Helper()
	out := slices.Clone(made)
	add := func(name string, template *corev1.PodTemplateSpec, serves bool) {
		w := workload{name, template.Labels, map[string]int32{}, template, serves}
		for _, c := range template.Spec.Containers {
			for _, p := range c.Ports {
				w.ports[p.Name] = p.ContainerPort
			}
		}
		out = append(out, w)
	}
	for _, d := range of[appsv1.Deployment](t, all, "Deployment") {
		add(d.Name, &d.Spec.Template, true)
	}
	for _, j := range of[batchv1.Job](t, all, "Job") {
		add(j.Name, &j.Spec.Template, false)
	}
	return out
}

// selected returns the workloads whose pods a selector selects.
func selected(ws []workload, selector *metav1.LabelSelector) ([]workload, error) {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, err
	}
	var out []workload
	for _, w := range ws {
		if s.Matches(labels.Set(w.labels)) {
			out = append(out, w)
		}
	}
	return out, nil
}

// images returns the names that "make images" uses.
func images(t testing.TB) []string {
	t.Helper()
	compose, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	var out []string
	for _, m := range regexp.MustCompile(`image: \$\{IMAGE_PREFIX:-(\w+)\}/(\w+):`).FindAllStringSubmatch(string(compose), -1) {
		out = append(out, m[1]+"/"+m[2])
	}
	require.NotEmpty(t, out)
	return out
}

// podProblems checks that every pod is as restricted as the containers of docker-compose.yml, and
// that its program knows its environment.
func podProblems(t testing.TB, all manifests) []string {
	t.Helper()
	var out []string
	known := images(t)
	for _, w := range workloads(t, all) {
		if w.template == nil {
			continue
		}
		say := func(format string, args ...any) { out = append(out, w.name+": "+fmt.Sprintf(format, args...)) }
		spec := &w.template.Spec
		for _, p := range standardProblems(t, &w.template.ObjectMeta, spec) {
			say("%s", p)
		}
		account := all.get("ServiceAccount", spec.ServiceAccountName)
		if account == nil || account.Object["automountServiceAccountToken"] != false || spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
			say("has a token, or no own account")
		}
		if account != nil && account.GetLabels()[nameLabel] != w.name {
			say("its account is not applied with it (docs/kubernetes.md, upgrading)")
		}
		if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
			say("enableServiceLinks is not false")
		}
		for _, c := range spec.Containers {
			image, _, tagged := strings.Cut(c.Image, ":")
			if !tagged || !slices.Contains(known, image) {
				say("image %s is none of %v", c.Image, known)
				continue
			}
			out = append(out, containerProblems(&w, &c)...)
			for _, p := range settingProblems(t, all, strings.TrimPrefix(image, "tagstream/"), &c) {
				say("%s", p)
			}
		}
	}
	return out
}

func containerProblems(w *workload, c *corev1.Container) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, w.name+": "+fmt.Sprintf(format, args...)) }
	if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
		say("can write to its root")
	}
	for _, r := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if c.Resources.Limits[r] == (resource.Quantity{}) {
			say("has no limit of %s", r)
		}
		if c.Resources.Requests[r] == (resource.Quantity{}) {
			say("has no request of %s", r)
		}
	}
	for _, e := range c.Env {
		// Go's MiB is Kubernetes' Mi.
		if e.Name != "GOMEMLIMIT" {
			continue
		}
		goes, err := resource.ParseQuantity(strings.TrimSuffix(e.Value, "B"))
		if limit := c.Resources.Limits[corev1.ResourceMemory]; err != nil || goes.Cmp(limit) >= 0 {
			say("GOMEMLIMIT %s is not below the limit of %s", e.Value, limit.String())
		}
	}
	if !w.serves {
		return out
	}
	if w.ports["ops"] != opsPorts[c.Name] {
		say("the image's ops listener is on port %d, not %d", opsPorts[c.Name], w.ports["ops"])
	}
	for kind, probe := range map[string]*corev1.Probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		path := map[string]string{"liveness": "/healthz", "readiness": "/readyz"}[kind]
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port.StrVal != "ops" {
			say("%s is not asked for at %s of port ops", kind, path)
		}
	}
	return out
}

// settingProblems parses a container's environment like its program.
func settingProblems(t testing.TB, all manifests, program string, c *corev1.Container) []string {
	t.Helper()
	var out, environ []string
	for _, from := range c.EnvFrom {
		for _, m := range of[corev1.ConfigMap](t, all, "ConfigMap") {
			if m.Name != from.ConfigMapRef.Name {
				continue
			}
			if m.Labels[nameLabel] != "settings" {
				out = append(out, "its settings are not applied with it (docs/kubernetes.md, upgrading)")
			}
			for _, name := range slices.Sorted(maps.Keys(m.Data)) {
				environ = append(environ, name+"="+m.Data[name])
			}
		}
	}
	if len(environ) == 0 {
		out = append(out, "has no common settings")
	}
	for _, e := range c.Env {
		environ = append(environ, e.Name+"="+e.Value)
		if strings.HasPrefix(e.Name, service.Prefix) && !programs[program].Reads(e.Name) {
			out = append(out, program+" does not read "+e.Name)
		}
	}
	if err := service.CheckEnvironment(environ); err != nil {
		out = append(out, err.Error())
	}
	return out
}

// referenceProblems follows references between objects.
func referenceProblems(t testing.TB, all manifests) []string {
	t.Helper()
	var out []string
	ws := workloads(t, all)
	one := func(what string, selector *metav1.LabelSelector, want string) *workload {
		found, err := selected(ws, selector)
		switch {
		case err != nil:
			out = append(out, what+": "+err.Error())
		case len(found) != 1:
			out = append(out, fmt.Sprintf("%s selects no pod, or pods of %d workloads", what, len(found)))
		case found[0].name != want:
			out = append(out, fmt.Sprintf("%s selects the pods of %s", what, found[0].name))
		default:
			return &found[0]
		}
		return nil
	}
	for _, d := range of[appsv1.Deployment](t, all, "Deployment") {
		one("Deployment "+d.Name, d.Spec.Selector, d.Name)
	}
	for _, b := range of[policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget") {
		one("PodDisruptionBudget "+b.Name, b.Spec.Selector, b.Name)
	}
	for _, s := range of[corev1.Service](t, all, "Service") {
		w := one("Service "+s.Name, &metav1.LabelSelector{MatchLabels: s.Spec.Selector}, s.Name)
		for _, p := range s.Spec.Ports {
			if w != nil && w.ports[p.TargetPort.StrVal] == 0 {
				out = append(out, fmt.Sprintf("Service %s: %s has no port %s", s.Name, w.name, p.TargetPort.StrVal))
			}
		}
	}
	for _, h := range of[autoscalingv2.HorizontalPodAutoscaler](t, all, "HorizontalPodAutoscaler") {
		target := all.get(h.Spec.ScaleTargetRef.Kind, h.Spec.ScaleTargetRef.Name)
		if target == nil {
			out = append(out, "HorizontalPodAutoscaler "+h.Name+": there is no "+h.Spec.ScaleTargetRef.Name)
		} else if spec := target.Object["spec"].(map[string]any); spec["replicas"] != nil {
			out = append(out, h.Spec.ScaleTargetRef.Name+" says how many there are, and so does its HorizontalPodAutoscaler")
		}
	}
	for _, i := range of[networkingv1.Ingress](t, all, "Ingress") {
		for _, rule := range i.Spec.Rules {
			for _, p := range rule.HTTP.Paths {
				if all.get("Service", p.Backend.Service.Name) == nil {
					out = append(out, "Ingress "+i.Name+": there is no Service "+p.Backend.Service.Name)
				}
			}
		}
	}
	return append(out, monitorProblems(t, all, ws)...)
}

// monitor is the part of a PodMonitor that is checked.
type monitor struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port string `json:"port"`
		} `json:"podMetricsEndpoints"`
	} `json:"spec"`
}

func monitorProblems(t testing.TB, all manifests, ws []workload) []string {
	t.Helper()
	var out []string
	for _, m := range of[monitor](t, all, "PodMonitor") {
		found, err := selected(ws, &m.Spec.Selector)
		if err != nil || len(found) == 0 {
			out = append(out, "PodMonitor "+m.Name+" selects no pod")
		}
		for _, w := range found {
			for _, e := range m.Spec.Endpoints {
				if w.ports[e.Port] == 0 {
					out = append(out, fmt.Sprintf("PodMonitor %s: %s has no port %q", m.Name, w.name, e.Port))
				}
			}
		}
	}
	return out
}
