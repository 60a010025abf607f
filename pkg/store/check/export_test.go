package check

import "time"

// SetSlice sets how long a snapshot of a verification lasts.
func (v *Verifier) SetSlice(d time.Duration) { v.slice = d }
