package report

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Machine describes the machine and versions that figures were measured with.
type Machine struct {
	CPU              string
	Cores            int
	System           string // kernel and architecture
	Go, Postgres     string
	NATS             string // set by the caller
	Fsync            string // Postgres's settings of fsync and synchronous_commit
	Sync             time.Duration
	Commit           string
	Date             time.Time
	LoadAt, LoadPast string // load averages of 1, 5 and 15 minutes before and after the run; "unknown" if the system has none
}

const unknown = "unknown"

// Inspect describes the machine, and times synced writes in dir. [Machine.InspectPostgres] adds
// Postgres's part.
func Inspect(ctx context.Context, dir string) (Machine, error) {
	m := Machine{
		CPU: cpuModel(), Cores: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(),
		Commit: commit(ctx), Date: time.Now().UTC(), LoadAt: LoadAverage(),
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.System += ", kernel " + strings.TrimSpace(string(release))
	}
	var err error
	m.Sync, err = syncTime(dir)
	return m, err
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // absent on other systems
	for line := range strings.SplitSeq(string(text), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

// LoadAverage returns the system's load over 1, 5 and 15 minutes.
func LoadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return unknown
	}
	return strings.Join(strings.Fields(string(text))[:3], ", ")
}

// commit returns the commit of the working tree.
func commit(ctx context.Context) string {
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return unknown
	}
	changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain").Output()
	if err == nil && len(changed) > 0 {
		return strings.TrimSpace(string(head)) + ", with changes"
	}
	return strings.TrimSpace(string(head))
}

// syncTime returns the median time of a small synced write in dir: each acknowledgement waits for
// one.
func syncTime(dir string) (time.Duration, error) {
	const writes = 50
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, fmt.Errorf("time synced writes: %w", err)
	}
	defer f.Close()
	took := make([]time.Duration, writes)
	for i := range took {
		began := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, fmt.Errorf("time synced writes: %w", err)
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("time synced writes: %w", err)
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[writes/2], nil
}

// InspectPostgres adds the server's version and settings.
func (m *Machine) InspectPostgres(ctx context.Context, conn *pgx.Conn) error {
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version'),
		'fsync ' || current_setting('fsync') || ', synchronous_commit ' || current_setting('synchronous_commit')`).Scan(&m.Postgres, &m.Fsync)
	if err != nil {
		return fmt.Errorf("ask Postgres for its version: %w", err)
	}
	return nil
}
