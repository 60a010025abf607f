package k8s

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Labels of namespaces with which a user grants access.
const (
	callsAPI     = "tagstream/calls-api"
	readsMetrics = "tagstream/reads-metrics"
)

// world stands for an external address.
const world = "the world"

// mayReach has all allowed connections, by client, server and port, as separated by
// docker-compose.yml's networks.
var mayReach = map[[2]string][]int32{
	{"ingest", "nats"}:       {4222},
	{"indexer", "nats"}:      {4222},
	{"nats", "nats"}:         {6222},
	{"indexer", "postgres"}:  {5432},
	{"api", "postgres"}:      {5432},
	{"migrate", "postgres"}:  {5432},
	{"rebuild", "nats"}:      {4222},
	{"rebuild", "postgres"}:  {5432},
	{"postgres", "postgres"}: {5432, 8000},
	{"ingest", world}:        {443},

	{callsAPI, "api"}:          {8080},
	{readsMetrics, "api"}:      {9093},
	{readsMetrics, "ingest"}:   {9091},
	{readsMetrics, "indexer"}:  {9092},
	{readsMetrics, "postgres"}: {9187},
}

// ports are all ports that something listens on, and an external one.
var ports = []int32{443, 4222, 5432, 6222, 8000, 8080, 8222, 9091, 9092, 9093, 9187}

// side is one end of a connection.
type side struct {
	name       string
	pod        *workload         // one of this namespace, or
	namespaces map[string]string // labels of another namespace, or
	address    string            // an external one
}

// networkProblems evaluates all policies together, like Kubernetes, and compares the allowed
// connections with mayReach.
func networkProblems(t testing.TB, all manifests) []string {
	t.Helper()
	var out []string
	policies := of[networkingv1.NetworkPolicy](t, all, "NetworkPolicy")
	ws := workloads(t, all)
	denies := func(p networkingv1.NetworkPolicy) bool {
		return len(p.Spec.PodSelector.MatchLabels)+len(p.Spec.PodSelector.MatchExpressions) == 0 && len(p.Spec.PolicyTypes) == 2
	}
	if !slices.ContainsFunc(policies, denies) {
		out = append(out, "no policy denies all that is not allowed")
	}
	for _, p := range policies {
		out = append(out, selectorProblems(&p, ws)...)
	}
	var inside []side
	for i := range ws {
		inside = append(inside, side{name: ws[i].name, pod: &ws[i]})
	}
	outside := []side{
		{name: world, address: "203.0.113.1"},
		{name: "another pod of the cluster", address: "10.1.2.3"},
		{name: callsAPI, namespaces: map[string]string{callsAPI: "true"}},
		{name: readsMetrics, namespaces: map[string]string{readsMetrics: "true"}},
		{name: "another namespace", namespaces: map[string]string{"kubernetes.io/metadata.name": "other"}},
	}
	for _, from := range append(slices.Clone(inside), outside...) {
		for _, to := range append(slices.Clone(inside), outside...) {
			if from.pod == nil && to.pod == nil {
				continue
			}
			for _, port := range ports {
				want := slices.Contains(mayReach[[2]string{from.name, to.name}], port)
				if to.name == "another pod of the cluster" && from.name == "postgres" && port == 443 {
					want = true // the API server
				}
				switch got := reaches(policies, from, to, port); {
				case got && !want:
					out = append(out, fmt.Sprintf("%s can reach %s:%d", from.name, to.name, port))
				case want && !got:
					out = append(out, fmt.Sprintf("%s cannot reach %s:%d", from.name, to.name, port))
				}
			}
		}
	}
	return out
}

// reaches reports whether the policies of both ends allow a TCP connection.
func reaches(policies []networkingv1.NetworkPolicy, from, to side, port int32) bool {
	out, in := from.pod == nil, to.pod == nil // others have their own policies
	for _, p := range policies {
		if from.pod != nil && matches(&p.Spec.PodSelector, from.pod.labels) {
			for _, rule := range p.Spec.Egress {
				out = out || allowsPort(rule.Ports, port, to.pod) && allowsPeer(rule.To, to)
			}
		}
		if to.pod != nil && matches(&p.Spec.PodSelector, to.pod.labels) {
			for _, rule := range p.Spec.Ingress {
				in = in || allowsPort(rule.Ports, port, to.pod) && allowsPeer(rule.From, from)
			}
		}
	}
	return out && in
}

func allowsPort(allowed []networkingv1.NetworkPolicyPort, port int32, target *workload) bool {
	return len(allowed) == 0 || slices.ContainsFunc(allowed, func(p networkingv1.NetworkPolicyPort) bool {
		if p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP {
			return false
		}
		if p.Port == nil {
			return true
		}
		if name := p.Port.StrVal; name != "" {
			return target != nil && target.ports[name] == port
		}
		return p.Port.IntVal == port
	})
}

func allowsPeer(allowed []networkingv1.NetworkPolicyPeer, other side) bool {
	return len(allowed) == 0 || slices.ContainsFunc(allowed, func(p networkingv1.NetworkPolicyPeer) bool {
		switch {
		case p.IPBlock != nil:
			return other.address != "" && contains(p.IPBlock.CIDR, other.address) &&
				!slices.ContainsFunc(p.IPBlock.Except, func(cidr string) bool { return contains(cidr, other.address) })
		case p.NamespaceSelector != nil:
			return p.PodSelector == nil && other.namespaces != nil && matches(p.NamespaceSelector, other.namespaces)
		}
		return other.pod != nil && matches(p.PodSelector, other.pod.labels)
	})
}

// selectorProblems finds selectors of pods of this namespace that match none.
func selectorProblems(p *networkingv1.NetworkPolicy, ws []workload) []string {
	selectors := []*metav1.LabelSelector{&p.Spec.PodSelector}
	add := func(peers []networkingv1.NetworkPolicyPeer) {
		for _, peer := range peers {
			if peer.PodSelector != nil && peer.NamespaceSelector == nil {
				selectors = append(selectors, peer.PodSelector)
			}
		}
	}
	for _, rule := range p.Spec.Ingress {
		add(rule.From)
	}
	for _, rule := range p.Spec.Egress {
		add(rule.To)
	}
	var out []string
	for _, s := range selectors {
		if found, err := selected(ws, s); err != nil || len(found) == 0 {
			out = append(out, fmt.Sprintf("NetworkPolicy %s: %s selects no pod", p.Name, metav1.FormatLabelSelector(s)))
		}
	}
	return out
}

func matches(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}

func contains(cidr, address string) bool {
	prefix, err := netip.ParsePrefix(cidr)
	return err == nil && prefix.Contains(netip.MustParseAddr(address))
}
