package obs

import (
	"fmt"
	"io"
	"log/slog"
)

// levels are the levels by name; slog itself accepts "warn+2" and the like.
var levels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// NewLogger returns a logger that writes to w. Format is "text" or "json",
// level is "debug", "info", "warn" or "error"; anything else is an error.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	l, ok := levels[level]
	if !ok {
		return nil, fmt.Errorf("log level %q is not debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // else JSON has bare nanoseconds
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if isTerminal(w) {
		w = besideBars{w}
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, fmt.Errorf("log format %q is not text or json", format)
}
