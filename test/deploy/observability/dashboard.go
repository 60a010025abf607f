package observability

import (
	"encoding/json"
	"fmt"
	"os"
)

// Board is the part of Grafana's JSON model that the tests read.
type Board struct {
	Title  string
	Panels []Panel
}

// Panel is a row's heading (Type "row"), a number ("stat") or curves ("timeseries").
type Panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []Target
	FieldConfig              struct{ Defaults Defaults }
}

// Target is one query of a panel.
type Target struct{ Expr, LegendFormat string }

// Defaults say how values are shown.
type Defaults struct {
	Unit       string
	Thresholds struct{ Steps []struct{ Color string } }
}

// Load reads a dashboard.
func Load(path string) (Board, error) {
	var b Board
	text, err := os.ReadFile(path)
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, fmt.Errorf("read dashboard %s: %w", path, err)
	}
	return b, nil
}
