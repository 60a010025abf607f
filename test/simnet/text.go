package simnet

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// language has the texts of one language: whole sentences, so that a page of posts looks real.
type language struct {
	code   string
	weight int
	lines  []string
}

// languages returns the languages of the generated posts.
func languages() []language {
	return []language{
		{"en", 56, []string{"Finished this one at two in the morning and I regret nothing.", "First try with the new brushes, be kind.",
			"Light over the harbour today was unreal", "Does anybody else keep a sketchbook only for coffee stains?", "Small study before work ☕",
			"Commissions are open again, two slots left!", "Old roll of film, finally developed.", "Somebody left this on the tram and I love it",
			"I have been staring at this layer for an hour 😅", "The cat sat on the palette. Again.", "New print in the shop, link in bio ✨",
			"Trying to draw hands. Please send help.", "Walked 12 km for this view and it was worth every one.", "WIP, colours tomorrow."}},
		{"ja", 15, []string{"今日の一枚です。", "ラフができました！", "久しぶりに描いた🎨", "桜がきれいだった", "締め切りまであと三日…", "お仕事募集しています"}},
		{"pt", 9, []string{"Rascunho de hoje, ainda sem cor.", "Que pôr do sol, gente 🌅", "Comissões abertas!", "Mais um estudo de anatomia"}},
		{"de", 7, []string{"Heute im Museum gewesen, großartig.", "Skizze aus dem Zug 🚆", "Nebel über dem Fluß, früh um sechs"}},
		{"es", 6, []string{"Boceto rápido antes de dormir", "¡Por fin terminé esta pieza!", "La luz de esta mañana en el mercado"}},
		{"ko", 3, []string{"오늘의 낙서", "커미션 열렸어요!"}},
		{"uk", 2, []string{"Нова ілюстрація, довго малювала", "Ранок у Карпатах ⛰️"}},
		{"ar", 1, []string{"لوحة جديدة اليوم", "صباح الخير من القاهرة"}},
		{"hi", 1, []string{"आज का चित्र 🖌️"}},
	}
}

// topic is one tag with its common spellings, which all normalize to the same tag.
type topic struct{ spellings []string }

// topics returns the tags in order of popularity; rareTag continues the list.
func topics() []topic {
	rows := [][]string{
		{"art", "art", "art", "Art", "Art", "ART", "aRt", "ａｒｔ"},
		{"photography", "Photography", "PHOTOGRAPHY"}, {"photo", "Photo"}, {"illustration", "Illustration"}, {"furryart", "FurryArt"},
		{"digitalart", "DigitalArt"}, {"イラスト"}, {"music", "Music"}, {"nature", "Nature"}, {"artist"}, {"オリジナル"}, {"cat", "Cat"}, {"caturday", "Caturday"},
		{"blackandwhite", "BlackAndWhite"}, {"写真"}, {"sketch"}, {"oc", "OC"}, {"birds", "Birds"}, {"wip", "WIP"}, {"gamedev", "GameDev"}, {"painting"},
		{"booksky", "BookSky"}, {"комиссии"}, {"ілюстрація"}, {"3d", "3D"}, {"pixelart", "PixelArt"}, {"watercolour"}, {"日常"}, {"streetphotography", "StreetPhotography"},
		{"فن"}, {"그림"}, {"commissionsopen"}, {"fanart", "FanArt"}, {"café", "Café", "cafe\u0301"}, {"c++"}, {"r/place"}, {"a,b"}, {"🎨"}, {"$ART"}, {"कला"},
	}
	out := make([]topic, 0, len(rows))
	for _, row := range rows {
		out = append(out, topic{row})
	}
	return out
}

// rareTag returns a tag of the long tail.
func rareTag(index int) string {
	first := []string{"north", "slow", "tiny", "blue", "late", "lost", "paper", "silver", "winter", "wild"}
	second := []string{"harbour", "kitchen", "lens", "garden", "garage", "planet", "robots", "rivers", "knits", "maps"}
	return fmt.Sprintf("%s%s%d", first[index%10], second[index/10%10], index/100)
}

// author generates records that depend only on its seed and on the given times.
type author struct {
	rng     *rand.Rand
	langs   []language
	total   int
	topics  []topic
	ranking *rand.Zipf
}

// name returns a random display name.
func (a *author) name() string {
	first := []string{"Ada", "Bruno", "Chiyo", "Dara", "Émile", "Fatma", "Goran", "Hana", "Iris", "Jun", "Kofi", "Lena", "Mateo", "Nadia", "Олена", "Priya"}
	last := []string{"", " Okafor", " Lindqvist", " Moreau", " (commissions open)", " 🎨", " of the North", " 🏳️‍🌈", " Tanaka", " Silva"}
	return first[a.rng.IntN(len(first))] + last[a.rng.IntN(len(last))]
}

// handleName returns a name's letters that are allowed in a handle.
func handleName(name string) string {
	letters := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return -1
	}, strings.ToLower(name))
	return cmp.Or(letters, "someone")
}

// rareTags is the number of tags in the long tail.
const rareTags = 5_000

// newAuthor makes an author.
func newAuthor(rng *rand.Rand) *author {
	a := &author{rng: rng, langs: languages(), topics: topics()}
	for _, l := range a.langs {
		a.total += l.weight
	}
	a.ranking = rand.NewZipf(rng, 1.15, 1.5, uint64(len(a.topics)+rareTags-1))
	return a
}

// tag returns a tag, popular ones more often, in one of its spellings.
func (a *author) tag() string {
	rank := int(a.ranking.Uint64())
	if rank >= len(a.topics) {
		return rareTag(rank - len(a.topics))
	}
	spellings := a.topics[rank].spellings
	return spellings[a.rng.IntN(len(spellings))]
}

// post returns a root post with count tags. Most have them as facets, some in the record's tags,
// some in both.
func (a *author) post(now time.Time, count int) map[string]any {
	lang := a.language()
	text := lang.lines[a.rng.IntN(len(lang.lines))]
	if a.rng.IntN(3) == 0 {
		text += " " + lang.lines[a.rng.IntN(len(lang.lines))]
	}
	var inText []string
	var outside []any
	style := a.rng.IntN(10)
	for range count {
		tag := a.tag()
		if style < 8 {
			inText = append(inText, tag)
		}
		if style >= 7 {
			outside = append(outside, tag)
		}
	}
	record := NewPost(a.writtenAt(now), text, inText...)
	record["langs"] = []any{lang.code}
	if lang.code != "en" && a.rng.IntN(8) == 0 {
		record["langs"] = []any{lang.code, "en"}
	}
	if outside != nil {
		record["tags"] = outside
	}
	if a.rng.IntN(12) == 0 {
		a.addLink(record)
	}
	return record
}

// addLink appends a link with its facet, so that not every facet is a tag.
func (a *author) addLink(record map[string]any) {
	text, _ := record["text"].(string)
	link := fmt.Sprintf("shop.example/p/%d", a.rng.IntN(10_000))
	start := len(text) + 1
	record["text"] = text + " " + link
	facets, _ := record["facets"].([]any)
	record["facets"] = append(facets, facet(start, start+len(link), map[string]any{"$type": "app.bsky.richtext.facet#link", "uri": "https://" + link}))
}

// language picks a language by weight.
func (a *author) language() language {
	pick := a.rng.IntN(a.total)
	for _, l := range a.langs {
		if pick -= l.weight; pick < 0 {
			return l
		}
	}
	return a.langs[0]
}

// writtenAt returns the time that a client claims: mostly a moment ago, sometimes that of an
// imported or scheduled post.
func (a *author) writtenAt(now time.Time) time.Time {
	switch pick := a.rng.IntN(100); {
	case pick < 2:
		return now.Add(-time.Duration(a.rng.IntN(3*365*24)) * time.Hour)
	case pick < 3:
		return now.Add(time.Duration(a.rng.IntN(120)) * time.Minute)
	default:
		return now.Add(-time.Duration(a.rng.IntN(1500)) * time.Millisecond)
	}
}
