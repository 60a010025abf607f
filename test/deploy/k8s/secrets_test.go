package k8s

import (
	"fmt"
	"path"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// theirs are the secrets that an operator makes, and the keys that programs may see.
var theirs = map[string]string{"postgres-ca": "ca.crt"}

// secretProblems traces every file that a program reads to its secret, and every secret to its
// creator.
func secretProblems(t testing.TB, all, secrets manifests) []string {
	t.Helper()
	var out []string
	for _, w := range workloads(t, all) {
		if w.template == nil {
			continue
		}
		say := func(format string, args ...any) { out = append(out, w.name+": "+fmt.Sprintf(format, args...)) }
		files := map[string]bool{}
		for _, v := range w.template.Spec.Volumes {
			if v.Projected == nil {
				say("volume %s is not made of secrets", v.Name)
				continue
			}
			for _, source := range v.Projected.Sources {
				var kind, name string
				var items []corev1.KeyToPath
				switch {
				case source.Secret != nil:
					kind, name, items = "Secret", source.Secret.Name, source.Secret.Items
				case source.ConfigMap != nil:
					kind, name, items = "ConfigMap", source.ConfigMap.Name, source.ConfigMap.Items
				}
				if len(items) == 0 {
					say("takes all of %s %q", kind, name)
				}
				for _, item := range items {
					files[v.Name+"/"+item.Path] = true
					if theirs[name] == item.Key {
						continue
					}
					switch object := secrets.get(kind, name); {
					case object == nil:
						say("nothing makes %s %s", kind, name)
					case object.Object["data"].(map[string]any)[item.Key] == nil:
						say("%s %s has no key %s", kind, name, item.Key)
					}
				}
			}
		}
		for _, c := range w.template.Spec.Containers {
			for _, e := range c.Env {
				for _, file := range filesIn(e) {
					if !mounted(&c, files, file) {
						say("%s is not mounted (%s)", file, e.Name)
					}
				}
			}
		}
	}
	return out
}

// filesIn returns the files that a variable names.
func filesIn(e corev1.EnvVar) []string {
	if strings.HasSuffix(e.Name, "_FILE") {
		return []string{e.Value}
	}
	if _, ca, found := strings.Cut(e.Value, "sslrootcert="); found {
		ca, _, _ = strings.Cut(ca, "&")
		return []string{ca}
	}
	return nil
}

func mounted(c *corev1.Container, files map[string]bool, file string) bool {
	for _, m := range c.VolumeMounts {
		if m.ReadOnly && m.MountPath == path.Dir(file) && files[m.Name+"/"+path.Base(file)] {
			return true
		}
	}
	return false
}
