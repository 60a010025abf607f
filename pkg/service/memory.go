package service

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

const (
	// roomyPercent is the most that a heap grows between two collections, in percent of the memory
	// in use, and room is the most in bytes, as long as that is not below leastPercent.
	roomyPercent, leastPercent = 400, 50
	room                       = 32 << 20
	// memoryShare is the heap's share of the container's limit, in percent; the rest is for
	// everything that is not the heap.
	memoryShare = 80
	// assumedMemory is the soft limit if nothing limits the container: that of deploy/.
	assumedMemory = 200 << 20
)

// UseMemory lets this process collect garbage less often: if little memory is in use, that is
// faster by a third and costs at most 32 MiB. A soft memory limit is derived from the container's
// limit. GOGC and GOMEMLIMIT take precedence.
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
		afterCollection(roomyPercent)
	}
}

// afterCollection sets by how much the heap may grow after each collection: with many followers the
// api uses so much memory that four times as much would be too much.
func afterCollection(percent int) {
	runtime.AddCleanup(new([]byte), func(percent int) {
		inUse := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
		metrics.Read(inUse)
		var bytes uint64
		for _, s := range inUse {
			bytes += s.Value.Uint64()
		}
		if now := growth(bytes); now != percent {
			percent = now
			debug.SetGCPercent(percent)
		}
		afterCollection(percent)
	}, percent)
}

// growth returns by how many percent of the memory in use the heap may grow.
func growth(inUse uint64) int {
	return min(max(int(room*100/max(inUse, 1)), leastPercent), roomyPercent)
}

// containerMemory returns the least of the limits on this process's cgroup and its parents, of
// either version; ok is false if there is none. In a container the path that the kernel shows can
// be the host's, of which only the end is mounted: what does not exist limits nothing.
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
				// Without a limit, version 2 says "max" and version 1 a number larger than any
				// memory.
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
