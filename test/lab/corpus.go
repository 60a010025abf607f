package lab

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/tagstream/tagstream/pkg/event"
	"github.com/tagstream/tagstream/pkg/store/query"
	"github.com/tagstream/tagstream/pkg/store/write"
)

// The tags with a part to play; the rest are words.
const (
	// hotTag is the hottest that a real network has: on 7% of the posts.
	hotTag = "art"
	// floodTag is on more than half of the posts, so that a page 10,000 exists at all.
	floodTag = "everything"
	// driftTag is on the posts that come and go.
	driftTag = "drift"
	// kitTags always come together, on 1% of the posts: the most that tags can overlap.
	kitTags = query.MaxTags
)

const (
	hotShare, floodShare, kitShare = 0.07, 0.55, 0.01
	// postsPerWord gives 200,000 words at 3 million posts.
	postsPerWord = 15
	// meanWords is how many words a post has on average; with the tags above and the pairs' that makes 3.2.
	meanWords = 2.1
	// wordSkew and wordShift are Zipf's law as rand.Zipf has it: the commonest word is on 3-4% of the posts.
	wordSkew, wordShift = 1.1, 10
	// driftRun is how many posts with driftTag follow each other, so that they tie too.
	driftRun        = 25
	postsPerAccount = 100
	maxAccounts     = 5_000
	// span is the time over which the posts are spread.
	span = 365 * 24 * time.Hour
)

func kitTag(i int) string  { return fmt.Sprintf("kit-%02d", i+1) }
func wordTag(i int) string { return fmt.Sprintf("word-%d", i) }
func lostTag(i int) string { return fmt.Sprintf("once-%06d", i) }

var corpusStart = time.Date(2025, 11, 1, 0, 0, 0, 0, time.UTC)

// corpus makes up posts, oldest first, the same ones for the same seed.
type corpus struct {
	cfg      Config
	rng      *rand.Rand
	words    *rand.Zipf
	accounts []*write.Account
	pairs    []pair
	made     int
	at       time.Time // of the burst under way
	burst    int       // what is left of it
	step     time.Duration
}

func newCorpus(cfg Config) *corpus {
	c := &corpus{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 1)), at: corpusStart, pairs: pairs()}
	c.words = rand.NewZipf(c.rng, wordSkew, wordShift, uint64(cfg.Posts/postsPerWord-1))
	for i := range min(maxAccounts, cfg.Posts/postsPerAccount) {
		c.accounts = append(c.accounts, &write.Account{DID: fmt.Sprintf("did:plc:lab%020d", i), Seq: 1})
	}
	const meanBurst = 7
	c.step = span / time.Duration(cfg.Posts/meanBurst)
	return c
}

// next makes the next post.
func (c *corpus) next() *write.Post {
	if c.burst == 0 {
		c.at = c.at.Add(time.Duration(c.rng.ExpFloat64() * float64(c.step))).Add(time.Microsecond).Truncate(time.Microsecond)
		c.burst = c.burstSize()
	}
	c.burst--
	p := c.post(c.at, c.tags())
	c.made++
	return p
}

// burstSize is how many posts have the same microsecond: mostly one, at times more than a page.
func (c *corpus) burstSize() int {
	switch u := c.rng.Float64(); {
	case u < 0.70:
		return 1
	case u < 0.95:
		return 2 + c.rng.IntN(7)
	default:
		return 20 + c.rng.IntN(180)
	}
}

// post makes a post of a random account.
func (c *corpus) post(at time.Time, tags []string) *write.Post {
	account := c.accounts[c.rng.IntN(len(c.accounts))]
	rkey := fmt.Sprintf("3l%011d", c.made)
	langs := c.langs()
	return &write.Post{
		Account: account, Rkey: rkey, Rev: rkey, CID: "bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
		Key: event.NewKey(at, event.URI(account.DID, rkey)), Tags: tags, Langs: langs, IndexedAt: at, Seq: uint64(c.made + 1),
		Record: fmt.Appendf(nil, `{"$type":"app.bsky.feed.post","text":%q,"langs":["%s"],"tags":["%s"],"createdAt":%q%s}`,
			filler[c.rng.IntN(100):][:60+c.rng.IntN(240)], strings.Join(langs, `","`), strings.Join(tags, `","`), at.Format("2006-01-02T15:04:05.000000Z"),
			traitsOf(c.made)),
	}
}

// traitsOf are the fields of a record for media and labels: of three posts one has pictures, of a
// hundred a few have a link or labels, of a thousand one has a gallery.
func traitsOf(n int) string {
	n = int(uint64(n) * 0x9e3779b97f4a7c15 >> 33)
	fields, kind := "", ""
	switch u := n % 1000; {
	case u < 1:
		kind = "gallery"
	case u < 330:
		kind = "images"
	case u < 400:
		kind = "external"
	}
	if kind != "" {
		fields = `,"embed":{"$type":"app.bsky.embed.` + kind + `"}`
	}
	if n/1000%50 == 0 {
		fields += `,"labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"nudity"}]}`
	}
	return fields
}

// filler is what texts are cut from.
var filler = strings.Repeat("one root post with tags, and what it says is of no account to anybody who pages; ", 6)

// languages and how often they are declared. Some posts declare a region, some nothing.
var languages = []struct {
	share float64
	langs []string
}{
	{0.50, []string{"en"}}, {0.10, []string{"en-US"}}, {0.20, []string{"ja"}}, {0.08, []string{"pt-BR"}}, {0.05, []string{"de"}},
	{0.02, []string{"de", "en"}}, {0.001, []string{"eu"}},
}

func (c *corpus) langs() []string {
	u := c.rng.Float64()
	for _, l := range languages {
		if u -= l.share; u < 0 {
			return l.langs
		}
	}
	return nil
}

// tags makes the tags of the next post.
func (c *corpus) tags() []string {
	var tags []string
	with := func(share float64, more ...string) bool {
		hit := c.rng.Float64() < share
		if hit {
			tags = append(tags, more...)
		}
		return hit
	}
	with(floodShare, floodTag)
	with(hotShare, hotTag)
	if with(kitShare) {
		for i := range kitTags {
			tags = append(tags, kitTag(i))
		}
	}
	tags = append(tags, c.pairTags()...)
	if every := c.cfg.Posts / c.cfg.Drift * driftRun; c.made%every < driftRun && c.made/every < c.cfg.Drift/driftRun {
		tags = append(tags, driftTag)
	}
	if every := c.cfg.Posts / c.cfg.Ties; c.made%every == 0 && c.made/every < c.cfg.Ties {
		tags = append(tags, lostTag(c.made/every))
	}
	return append(tags, c.someWords()...)
}

// someWords are one word or more, no word twice.
func (c *corpus) someWords() []string {
	var words []string
	for more := true; more; more = c.rng.Float64() < 1-1/meanWords {
		word := wordTag(int(c.words.Uint64()))
		twice := false
		for _, w := range words {
			twice = twice || w == word
		}
		if !twice {
			words = append(words, word)
		}
	}
	return words
}
