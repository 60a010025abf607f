package obs

import (
	"errors"
	"log/slog"
	"sort"
	"sync"
)

// Health is the condition of a service, by component. The service is ready if every component that
// was ever set is well. Health logs each change of a component once, however often the same error
// is reported.
type Health struct {
	logger *slog.Logger

	mu       sync.Mutex
	state    map[string]error // guarded by mu
	stopping bool             // guarded by mu
}

// NewHealth returns a Health in which the named components are not ready yet.
func NewHealth(logger *slog.Logger, components ...string) *Health {
	h := &Health{logger: logger, state: map[string]error{}}
	for _, c := range components {
		h.state[c] = errStarting
	}
	return h
}

// StandingBy is the condition of a component that is well but idle, since another instance does its
// work. It counts as ready, but tagstream_component_ready shows 0 for it, so that a failing
// instance next to it is noticed.
func StandingBy(err error) error { return &standingBy{err} }

type standingBy struct{ error }

func (s *standingBy) Unwrap() error { return s.error }

func isStandingBy(err error) bool {
	var s *standingBy
	return errors.As(err, &s)
}

var errStarting = errors.New("starting")

// componentService stands for the service as a whole in the result of NotReady.
const componentService = "service"

// Stop marks the service as stopping: it is not ready from then on, so that it receives no new work
// while it finishes.
func (h *Health) Stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
}

// Set records a component's condition; nil means that it is well.
func (h *Health) Set(component string, err error) {
	// Log under the lock, so that the lines have the order of the changes.
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.state[component]
	h.state[component] = err
	switch {
	case h.stopping:
		// While the service stops, servers going away are expected.
	case isStandingBy(err):
		if !isStandingBy(before) {
			h.logger.Info("standing by", "component", component, "why", err)
		}
	case err != nil && (before == nil || errors.Is(before, errStarting) || isStandingBy(before)):
		h.logger.Warn("not ready", "component", component, "err", err)
	case err == nil && before != nil && !errors.Is(before, errStarting) && !isStandingBy(before):
		h.logger.Info("ready again", "component", component)
	}
}

// NotReady returns why the service is not ready, by component; empty when it is.
func (h *Health) NotReady() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]string{}
	for c, err := range h.state {
		if err != nil && !isStandingBy(err) {
			out[c] = err.Error()
		}
	}
	if h.stopping {
		out[componentService] = "stopping"
	}
	return out
}

// StandsBy returns why components that are ready are idle, by component.
func (h *Health) StandsBy() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]string{}
	for c, err := range h.state {
		if isStandingBy(err) {
			out[c] = err.Error()
		}
	}
	return out
}

// Components returns the names of all components, sorted.
func (h *Health) Components() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for c := range h.state {
		out = append(out, c)
	}
	sort.Strings(out)
	return out
}
