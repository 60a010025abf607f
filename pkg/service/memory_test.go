package service

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestContainerMemory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  int64 // 0 means no limit
	}{
		"another system":            {nil, 0},
		"version 2, in a container": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "268435456\n"}, 256 << 20},
		"version 2, a limit above ours": {map[string]string{"proc/self/cgroup": "0::/pods/a\n",
			"sys/fs/cgroup/pods/a/memory.max": "max\n", "sys/fs/cgroup/pods/memory.max": "1073741824\n"}, 1 << 30},
		"version 2, the lesser counts": {map[string]string{"proc/self/cgroup": "0::/pods/a\n",
			"sys/fs/cgroup/pods/a/memory.max": "268435456\n", "sys/fs/cgroup/pods/memory.max": "1073741824\n"}, 256 << 20},
		"version 2, none": {map[string]string{"proc/self/cgroup": "0::/user.slice\n", "sys/fs/cgroup/user.slice/memory.max": "max\n"}, 0},
		"version 1, the host's path": {map[string]string{"proc/self/cgroup": "5:cpu,memory:/docker/abc\n3:cpu:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "536870912\n", "sys/fs/cgroup/memory.max": "1\n"}, 512 << 20},
		"version 1, none": {map[string]string{"proc/self/cgroup": "5:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for name, text := range c.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			got, ok := containerMemory(root)
			require.Equal(t, c.want > 0, ok)
			if ok {
				require.Equal(t, c.want, got)
			}
		})
	}
}

// The memory in use plus its growth stays below the soft limit for longer than with a percentage
// alone, and a small heap can grow a lot.
func TestGrowth(t *testing.T) {
	t.Parallel()
	for inUse, want := range map[uint64]int{0: 400, 1 << 20: 400, 8 << 20: 400, 16 << 20: 200, 32 << 20: 100, 50 << 20: 64, 64 << 20: 50, 1 << 30: 50} {
		require.Equal(t, want, growth(inUse), "%d MiB", inUse>>20)
	}
}
