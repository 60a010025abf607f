package httpapi

import (
	"context"

	"github.com/tagstream/tagstream/pkg/store"
)

func (f fakeIndex) Tags(_ context.Context, q store.TagQuery) (store.TagPage, error) {
	return store.TagPage{Next: q.From, Previous: q.From}, nil
}

func (f fakeIndex) TagsWithPrefix(context.Context, string) ([]store.TagCount, error) {
	return nil, nil
}

func (f fakeIndex) TagHistory(context.Context, string) (store.TagHistory, error) {
	return store.TagHistory{}, store.ErrNotFound
}

func (f fakeIndex) RankedTags(context.Context, int, int) ([]store.TagCount, int64, error) {
	return nil, 0, nil
}
