package obs

// Progress receives the progress of long work. A Bar shows it.
type Progress interface {
	// At reports that done of total are done; total may grow.
	At(done, total uint64)
	// Say announces a step.
	Say(step string)
}
