package service

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// roomyPercent is how much a heap grows between two collections, in percent of what it holds.
	roomyPercent = 400
	// memoryShare of the container's limit is the heap's, in percent; the rest is for what is not
	// the heap.
	memoryShare = 80
	// assumedMemory is the soft limit where nothing limits the container: that of deploy/.
	assumedMemory = 200 << 20
)

// UseMemory lets this process collect garbage less often, up to a soft limit of memory by what its
// container allows. What GOGC and GOMEMLIMIT say is left as it is.
func UseMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		limit := int64(assumedMemory)
		if allowed, ok := containerMemory(os.DirFS("/")); ok {
			limit = allowed / 100 * memoryShare
		}
		debug.SetMemoryLimit(limit)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(roomyPercent)
	}
}

// containerMemory is the least of the limits on this process's cgroup and those above it, of either
// version; ok is false where there is none. In a container the path that the kernel shows can be
// the host's, of which only the end is mounted: what is not there limits nothing.
func containerMemory(root fs.FS) (bytes int64, ok bool) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false // another system
	}
	bytes = math.MaxInt64
	for line := range strings.SplitSeq(string(text), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.max"
		switch {
		case parts[1] == "": // version 2
		case strings.Contains(","+parts[1]+",", ",memory,"):
			mount, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for group := path.Clean("/" + parts[2]); ; group = path.Dir(group) {
			if text, err := fs.ReadFile(root, path.Join(mount, group, file)); err == nil {
				// Without a limit version 2 says "max", and version 1 a number beyond all memory.
				if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 && n < 1<<60 {
					bytes = min(bytes, n)
				}
			}
			if group == "/" {
				break
			}
		}
	}
	return bytes, bytes < math.MaxInt64
}
