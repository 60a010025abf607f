package write

import "context"

// ListSome makes a piece of the lists, of so many posts, and has List continue in such pieces and
// count a tag at a time.
func (w *Writer) ListSome(ctx context.Context, posts int) error {
	w.listPosts, w.listTerms = posts, 1
	_, err := w.listSome(ctx)
	return err
}
