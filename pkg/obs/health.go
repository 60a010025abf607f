package obs

import (
	"errors"
	"log/slog"
	"sort"
	"sync"
)

// Health is what a service knows of its own condition, by component. It is
// ready when every component that was ever set is well. It logs a component's
// change once, not each time that the same trouble is reported.
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

// StandingBy is the condition of a component that is well and has nothing to do,
// since another instance does its work. It is ready, but tagstream_component_ready
// counts it as 0: there one that is in trouble shall show beside it.
func StandingBy(err error) error { return &standingBy{err} }

type standingBy struct{ error }

func (s *standingBy) Unwrap() error { return s.error }

func isStandingBy(err error) bool {
	var s *standingBy
	return errors.As(err, &s)
}

var errStarting = errors.New("starting")

// componentService is the service as a whole, in what NotReady says.
const componentService = "service"

// Stop says that the service is being stopped: it is not ready from then on,
// so that nothing new is sent to it while it finishes.
func (h *Health) Stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
}

// Set records a component's condition: nil is well.
func (h *Health) Set(component string, err error) {
	// Logging is inside, so that the lines come in the order of the changes.
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.state[component]
	h.state[component] = err
	switch {
	case h.stopping:
		// Servers go away as they are told to.
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

// StandsBy returns why components that are ready do nothing, by component.
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
