package pgserver

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const (
	// maxLogBytes is the size of postgres.log at which a start begins a new one.
	maxLogBytes = 8 << 20
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
	if s.logFrom, err = file.Seek(0, io.SeekEnd); err != nil {
		file.Close()
		return nil, fmt.Errorf("open the server's log: %w", err)
	}
	return file, nil
}

// logTail returns the last lines that this run wrote to the log, for an error.
func (s *Server) logTail() string {
	file, err := os.Open(s.logPath())
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err.Error()
	}
	text, err := io.ReadAll(io.NewSectionReader(file, max(s.logFrom, size-tailBytes), tailBytes))
	switch {
	case err != nil:
		return err.Error()
	case len(text) == 0:
		return "it wrote nothing to " + s.logPath()
	}
	return lastLines(string(text))
}

// lastLines joins the last lines of text into one.
func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], " | ")
}
