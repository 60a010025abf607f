package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/obs"
	"github.com/tagstream/tagstream/pkg/store"
	"github.com/tagstream/tagstream/pkg/store/write"
	"github.com/tagstream/tagstream/test/site"
)

const (
	// seedBatch is the number of posts written in one transaction.
	seedBatch = 1_000
	// vacuumLimit bounds the wait until every page is all-visible.
	vacuumLimit = time.Minute
)

// Corpus describes the contents of the index, according to the index.
type Corpus struct {
	Posts, PostTags, Tags int
	Bytes                 int64
	// Tied is the number of posts that share their microsecond with another.
	Tied int
	// Hot and Flood are the numbers of posts of hotTag and floodTag, Ties the number of tags with
	// one post.
	Hot, Flood, Ties int
}

// Fill fills the index of a migrated database without posts, and vacuums it.
func Fill(ctx context.Context, cfg Config, pg *site.Postgres) (Corpus, error) {
	s, err := openIndex(ctx, cfg, pg)
	if err != nil {
		return Corpus{}, err
	}
	defer s.close()
	return s.seed(ctx)
}

// seed fills the index and vacuums it.
func (s *index) seed(ctx context.Context) (out Corpus, err error) {
	bar := obs.NewBar(s.cfg.Bar, s.log, "seeding", "posts")
	defer bar.Close()
	s.corpus = newCorpus(s.cfg)
	if err := s.withWriter(ctx, func(w *writer) error { return s.fill(ctx, w, bar, &out) }); err != nil {
		return out, err
	}
	bar.Say("vacuuming")
	if err := s.vacuum(ctx); err != nil {
		return out, err
	}
	return out, s.describe(ctx, &out)
}

// fill writes the corpus, and remembers the posts that will change.
func (s *index) fill(ctx context.Context, w *writer, bar *obs.Bar, out *Corpus) error {
	c := s.corpus
	var tieAt time.Time
	tie := 0
	for c.made < s.cfg.Posts {
		var changes write.Changes
		if c.made == 0 {
			changes.Accounts = slices.Clone(c.accounts)
		}
		for len(changes.Posts) < seedBatch && c.made < s.cfg.Posts {
			p := c.next()
			changes.Posts = append(changes.Posts, write.PostChange{New: p, NewVisible: true})
			if slices.Contains(p.Tags, driftTag) {
				s.drift = append(s.drift, p)
			}
			if at := p.Key.SortAt(); !at.Equal(tieAt) {
				tieAt, tie = at, 0
			}
			if tie++; tie == 2 {
				out.Tied += 2
			} else if tie > 2 {
				out.Tied++
			}
		}
		if err := w.apply(ctx, changes, c.at); err != nil {
			return err
		}
		bar.At(uint64(c.made), uint64(s.cfg.Posts))
	}
	return nil
}

// writer writes changes like the indexer.
type writer struct {
	*write.Writer
	seq uint64 // of an imaginary stream with one message per post
}

func (w *writer) apply(ctx context.Context, changes write.Changes, at time.Time) error {
	w.seq += uint64(len(changes.Posts))
	err := w.Apply(ctx, func(tx *write.Tx, cp store.Checkpoint) (store.Checkpoint, error) {
		cp.Seq, cp.Source = w.seq, event.Position{Host: "lab", Seq: w.seq, Time: at}
		return cp, tx.Write(ctx, changes)
	})
	if err != nil {
		return fmt.Errorf("write %d posts: %w", len(changes.Posts), err)
	}
	return nil
}

// vacuum makes every page all-visible. That can take several attempts: after asynchronous commits,
// rows whose commit is not on disk yet do not count, nor do those that another snapshot may not
// see.
func (s *index) vacuum(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, vacuumLimit)
	defer cancel()
	for {
		if _, err := s.owner.Exec(ctx, "BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, '', ''); COMMIT"); err != nil {
			return fmt.Errorf("flush the log: %w", err)
		}
		for _, table := range []string{"post_tags", "post_langs", "posts", "tags", "langs", "accounts"} {
			if _, err := s.owner.Exec(ctx, "VACUUM (ANALYZE) "+table); err != nil {
				return fmt.Errorf("vacuum %s: %w", table, err)
			}
		}
		var hidden int
		err := s.owner.QueryRow(ctx, `
			SELECT sum(relpages - relallvisible)::int FROM pg_class
			 WHERE oid IN ('post_tags'::regclass, 'post_langs'::regclass, 'tags'::regclass)`).Scan(&hidden)
		if err != nil {
			return fmt.Errorf("count pages that are all-visible: %w", err)
		}
		if hidden == 0 {
			return nil
		}
		s.log.Info("vacuuming again", "pagesNotAllVisible", hidden)
	}
}

// describe queries the contents of the index.
func (s *index) describe(ctx context.Context, c *Corpus) error {
	err := s.owner.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM posts), (SELECT count(*) FROM post_tags), (SELECT count(*) FROM tags WHERE posts > 0),
		       (SELECT posts FROM tags WHERE name = $1), (SELECT posts FROM tags WHERE name = $2), (SELECT count(*) FROM tags WHERE posts = 1),
		       (SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = $3::regnamespace AND relkind = 'r')::bigint`,
		hotTag, floodTag, store.Live).Scan(&c.Posts, &c.PostTags, &c.Tags, &c.Hot, &c.Flood, &c.Ties, &c.Bytes)
	if err != nil {
		return fmt.Errorf("describe the corpus: %w", err)
	}
	if c.Posts != s.cfg.Posts {
		return fmt.Errorf("%d posts were written and %d are there", s.cfg.Posts, c.Posts)
	}
	return nil
}
