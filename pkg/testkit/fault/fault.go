package fault

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Form says whether a fault strikes before or after the server's work.
type Form int

// The forms.
const (
	// Failed: the operation never reached the server.
	Failed Form = iota
	// TookEffect: the server did it, but its answer was lost.
	TookEffect
)

// Forms lists both.
var Forms = []Form{Failed, TookEffect}

func (f Form) String() string {
	if f == TookEffect {
		return "took effect"
	}
	return "failed"
}

// Break says what happens to the connection.
type Break int

// The ways to break.
const (
	// Cut closes the connection.
	Cut Break = iota
	// Reset closes it with a TCP reset.
	Reset
	// Torn forwards half of the frame and resets.
	Torn
	// Silent loses only the frame: the connection stays, without any sign.
	Silent
	// Nothing breaks nothing: only Fault.Then runs, and the frame continues.
	Nothing
)

// Breaks lists those that break something.
var Breaks = []Break{Cut, Reset, Torn, Silent}

func (b Break) String() string { return [...]string{"cut", "reset", "torn", "silent", "nothing"}[b] }

// Op is an operation that a client requests from a server.
type Op struct {
	// Text is the subject of a NATS publish, or an SQL statement.
	Text string
	// Body is a NATS message with its headers.
	Body []byte
	// Before are the statements of the same Postgres transaction so far.
	Before []string
}

// Match reports whether an operation is the intended one.
type Match func(Op) bool

// Publish matches a NATS message that is published to a subject with that prefix; of an atomic
// batch only the last message, which stores it.
func Publish(prefix string) Match {
	return func(op Op) bool {
		body := string(op.Body)
		return strings.HasPrefix(op.Text, prefix) &&
			(strings.Contains(body, "Nats-Batch-Commit:") || !strings.Contains(body, "Nats-Batch-Id:"))
	}
}

// Statement matches an SQL statement that has part in it.
func Statement(part string) Match {
	return func(op Op) bool { return strings.Contains(op.Text, part) }
}

// CommitAfter matches the commit of a transaction in which a statement with part
// in it was sent.
func CommitAfter(part string) Match {
	return func(op Op) bool {
		if !strings.EqualFold(strings.TrimSpace(op.Text), "commit") {
			return false
		}
		for _, statement := range op.Before {
			if strings.Contains(statement, part) {
				return true
			}
		}
		return false
	}
}

// Fault is something that fails once.
type Fault struct {
	// Kind names it in the Log.
	Kind string
	// Match selects the operation, and Nth which of the matching ones from now on; 0 means the
	// first. TookEffect skips operations that request no answer.
	Match Match
	Nth   int
	Form  Form
	Break Break
	// Then, if set, is called when the fault fires, before the connection breaks: for example, to
	// kill a process at exactly this operation.
	Then func()
}

// name is the name in the Log: the kind and, if something breaks, the form.
func (f Fault) name() string {
	if f.Break == Nothing {
		return f.Kind
	}
	return fmt.Sprintf("%s, %s", f.Kind, f.Form)
}

// Armed is a fault that waits for its operation.
type Armed struct {
	proxy *Proxy
	fault Fault
	left  int // matching operations until it fires; guarded by proxy.mu
	fired chan struct{}
}

// Fired is closed when the fault has fired: in its form TookEffect when the
// server has answered.
func (a *Armed) Fired() <-chan struct{} { return a.fired }

// Disarm removes the fault, unless it is firing or has fired.
func (a *Armed) Disarm() {
	a.proxy.mu.Lock()
	defer a.proxy.mu.Unlock()
	a.proxy.armed = slices.DeleteFunc(a.proxy.armed, func(b *Armed) bool { return a == b })
}

func (a *Armed) fire() {
	a.proxy.log.Add(a.fault.name())
	if a.fault.Then != nil {
		a.fault.Then()
	}
	close(a.fired)
}

// Log counts the faults that fired, by name. It is safe for concurrent use; its zero value is
// empty.
type Log struct {
	mu     sync.Mutex
	counts map[string]int
}

// Add counts one.
func (l *Log) Add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counts == nil {
		l.counts = map[string]int{}
	}
	l.counts[name]++
}

// Counts returns the faults that have fired so far, by name.
func (l *Log) Counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}
