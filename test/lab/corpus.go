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

// The tags with a special role; the others are words.
const (
	// hotTag is as frequent as the most frequent tag of the real network: on 7% of the posts.
	hotTag = "art"
	// floodTag is on more than half of the posts, so that there is a page 10,000.
	floodTag = "everything"
	// driftTag is on the posts that are added and removed.
	driftTag = "drift"
	// kitTags always occur together, on 1% of the posts: the maximum overlap of tags.
	kitTags = query.MaxTagsEach
)

const (
	hotShare, floodShare, kitShare = 0.07, 0.55, 0.01
	// postsPerWord gives 200,000 words at 3 million posts.
	postsPerWord = 15
	// meanWords is the average number of words of a post; with the tags above and those of pairs
	// that makes 3.2 tags.
	meanWords = 2.1
	// wordSkew and wordShift are the parameters of rand.Zipf: the most frequent word is on 3-4% of
	// the posts.
	wordSkew, wordShift = 1.1, 10
	// driftRun is the number of consecutive posts with driftTag, so that these tie, too.
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

// corpus generates posts, oldest first, depending only on the seed.
type corpus struct {
	cfg      Config
	rng      *rand.Rand
	words    *rand.Zipf
	accounts []*write.Account
	pairs    []pair
	made     int
	at       time.Time // of the current burst
	burst    int       // posts left in it
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

// next returns the next post.
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

// burstSize returns the number of posts in the same microsecond: mostly one, sometimes more than a
// page.
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

// post returns a post of a random account.
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

// traitsOf returns the record's fields for media and labels: one post in three has pictures, a few
// percent have a link or labels, one in a thousand has a gallery.
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

// filler is the source of texts.
var filler = strings.Repeat("one root post with tags, and what it says is of no account to anybody who pages; ", 6)

// languages has the languages and how often posts declare them. Some posts declare a region, some
// none.
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

// tags returns the tags of the next post.
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

// someWords returns one or more distinct words.
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
