package pgserver

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	// tailBytes and tailLines bound what an error repeats of the server's log.
	tailBytes = 4 << 10
	tailLines = 8
)

func (s *Server) logPath() string { return filepath.Join(s.cfg.Dir, "postgres.log") }

// openLog opens the server's log for this run, after moving a long one aside.
func (s *Server) openLog() (*os.File, error) {
	path := s.logPath()
	if info, err := os.Stat(path); err == nil && info.Size() > maxLogBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("move the server's log aside: %w", err)
		}
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the server's log: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open the server's log: %w", err)
	}
	s.logFrom = info.Size()
	return file, nil
}

// logTail gives the last lines that this run wrote to the log, for an error.
func (s *Server) logTail() string {
	file, err := os.Open(s.logPath())
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err.Error()
	}
	from := max(s.logFrom, info.Size()-tailBytes)
	text, err := io.ReadAll(io.NewSectionReader(file, from, tailBytes))
	if err != nil {
		return err.Error()
	}
	if len(text) == 0 {
		return "it wrote nothing to " + s.logPath()
	}
	return lastLines(string(text))
}

// lastLines puts the last lines of text on one.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], " | ")
}
