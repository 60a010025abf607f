package model

func (f *fakeAPI) status() map[string]any { return map[string]any{} }
