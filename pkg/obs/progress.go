package obs

// Progress hears how far long work is. A Bar shows it.
type Progress interface {
	// At says that done of total are done; total may grow.
	At(done, total uint64)
	// Say announces a step.
	Say(step string)
}
