package event_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"

	"github.com/tagstream/tagstream/pkg/event"
)

func TestNormalizeTag(t *testing.T) {
	t.Parallel()
	family := "👩‍👩‍👧‍👦" // one grapheme of 25 bytes
	wales := "🏴\U000E0067\U000E0062\U000E0077\U000E006C\U000E0073\U000E007F"
	for _, c := range []struct {
		name, raw, want string
		err             error
	}{
		{name: "plain", raw: "art", want: "art"},
		{name: "upper case", raw: "ArT", want: "art"},
		{name: "accents stay", raw: "ÉTÉ", want: "été"},
		{name: "decomposed", raw: "e\u0301te\u0301", want: "\u00e9t\u00e9"},
		{name: "cashtag", raw: "$TSLA", want: "$tsla"},
		{name: "comma", raw: "a,b", want: "a,b"},
		{name: "path", raw: "../a%2Fb?c#d", want: "../a%2fb?c#d"},
		{name: "space inside", raw: "two words", want: "two words"},

		{name: "hash", raw: "#art", want: "art"},
		{name: "hashes", raw: "###art", want: "art"},
		{name: "hash inside and behind", raw: "a#b#", want: "a#b#"},
		{name: "full-width hash", raw: "＃art", want: "art"},
		{name: "small hash", raw: "﹟art", want: "art"},
		{name: "nested", raw: "# #x", want: "x"},
		{name: "nested deep", raw: " # ＃\t#\u3000# x ", want: "x"},
		{name: "keycap", raw: "#\ufe0f\u20e3", want: "#\u20e3"},
		{name: "keycap behind a hash", raw: "##\ufe0f\u20e3", want: "#\u20e3"},
		{name: "keycap behind hash and space", raw: "# #\ufe0f\u20e3art", want: "#\u20e3art"},
		{name: "keycap of a full-width hash", raw: "＃\ufe0f\u20e3", want: "#\u20e3"},
		{name: "keycap without its selector", raw: "#\u20e3", want: "#\u20e3"},
		{name: "hash with a selector alone", raw: "#\ufe0fart", want: "art"},
		{name: "hash and another invisible before a keycap", raw: "#\u200b\u20e3", want: "\u20e3"},
		{name: "hash before a combining mark", raw: "#\u0301a", want: "\u0301a"},

		{name: "white space around", raw: "\t \u00a0\u3000art\u2028\n", want: "art"},
		{name: "white space behind invisible", raw: "\u200b # \u2060#art \u00ad", want: "art"},
		{name: "invisible between what composes", raw: "e\u200b\u0301", want: "\u00e9"},
		{name: "Persian with a non-joiner", raw: "می\u200cخواهم", want: "میخواهم"},
		{name: "joiner in Hindi", raw: "क्\u200dष", want: "क्ष"},
		{name: "Thai sara am", raw: "ทำ", want: "ท\u0e4d\u0e32"},
		{name: "Arabic number sign shows", raw: "\u0600123", want: "\u0600123"},

		{name: "emoji presentation", raw: "❤\ufe0f", want: "❤"},
		{name: "text presentation", raw: "❤\ufe0e", want: "❤"},
		{name: "joined", raw: "🏳\ufe0f\u200d🌈", want: "🏳\u200d🌈"},
		{name: "joined with skin tones", raw: "🧑🏽\u200d🤝\u200d🧑🏻", want: "🧑🏽\u200d🤝\u200d🧑🏻"},
		{name: "family", raw: family, want: family},
		{name: "joined twice", raw: "❤\u200d\u200d🔥", want: "❤\u200d🔥"},
		{name: "joined and parted", raw: "❤\u200d\u200b🔥", want: "❤\u200d🔥"},
		{name: "joiners elsewhere", raw: "\u200d❤\u200da\u200d🔥\u200d", want: "❤a🔥"},
		{name: "joiner behind a tone of nothing", raw: "a🏽\u200d🔥", want: "a🏽🔥"},
		{name: "flag of Wales", raw: wales, want: wales},
		{name: "flag of Wales, not ended", raw: strings.TrimSuffix(wales, "\U000E007F"), want: "🏴"},
		{name: "tag characters behind a letter", raw: "a" + strings.TrimPrefix(wales, "🏴"), want: "a"},
		{name: "end of tag characters alone", raw: "🏴\U000E007F", want: "🏴"},
		{name: "joiner behind tag characters", raw: wales + "\u200d🔥", want: wales + "🔥"},
		{name: "an emoji that is none when composed", raw: "🔥\u200d↔\u200b\u0338", want: "🔥↮"},
		{name: "spacing accent", raw: "\u00b4", want: "\u0301"}, // NFKC: space and accent
		{name: "dotless i", raw: "ISTANBUL ISPARTA ı", want: "istanbul isparta ı"},
		{name: "dotted capital I", raw: "İ", want: "i"},
		{name: "final sigma is not special", raw: "ΟΔΟΣ", want: "οδοσ"},
		{name: "final sigma as written", raw: "Οδος", want: "οδος"},
		{name: "sharp s", raw: "STRAẞE ß", want: "straße ß"},
		{name: "compatibility forms", raw: "ﬁ①Ａｒｔ㎏™", want: "fi1artkgtm"},
		{name: "superscript", raw: "x²", want: "x2"},
		{name: "ligature of words", raw: "ﷺ", want: "صلى الله عليه وسلم"},
		{name: "kelvin and angstrom", raw: "\u212a\u212b", want: "kå"},
		{name: "half-width katakana", raw: "ｶﾞ", want: "ガ"},
		{name: "jamo", raw: "\u1112\u1161\u11ab", want: "한"},
		{name: "title case", raw: "ǅ", want: "dž"},
		{name: "flag", raw: "🇩🇪", want: "🇩🇪"},
		{name: "not UTF-8", raw: "a\xffb", want: "a\ufffdb"},

		{name: "empty", raw: "", err: event.ErrTagEmpty},
		{name: "white space alone", raw: " \u3000\n", err: event.ErrTagEmpty},
		{name: "hashes alone", raw: "# ＃ #", err: event.ErrTagEmpty},
		{name: "invisible alone", raw: "#\u00ad\u2800\ufe0f\u200d\U000E0067\U000E007F", err: event.ErrTagEmpty},
		{name: "NUL", raw: "a\x00b", err: event.ErrTagNUL},
		{name: "NUL alone", raw: "\x00", err: event.ErrTagNUL},

		{name: "64 graphemes", raw: strings.Repeat("x", 64), want: strings.Repeat("x", 64)},
		{name: "65 graphemes", raw: strings.Repeat("x", 65), err: event.ErrTagTooLong},
		{name: "64 graphemes of more runes", raw: strings.Repeat("\u0915\u093f", 64), want: strings.Repeat("\u0915\u093f", 64)},
		{name: "640 bytes", raw: strings.Repeat(family, 25) + strings.Repeat("x", 15), want: strings.Repeat(family, 25) + strings.Repeat("x", 15)},
		{name: "641 bytes", raw: strings.Repeat(family, 25) + strings.Repeat("x", 16), err: event.ErrTagTooLong},
		{name: "hash and space do not count", raw: " #" + strings.Repeat("x", 64) + " ", want: strings.Repeat("x", 64)},
		{name: "grows beyond the limit", raw: strings.Repeat("ﷺ", 4), err: event.ErrTagTooLong},
		{name: "shrinks into the limit", raw: strings.Repeat("\u1112\u1161\u11ab", 64), want: strings.Repeat("한", 64)},
		{name: "a mountain of marks", raw: "a" + strings.Repeat("\u0301", 10_000), err: event.ErrTagTooLong},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := event.NormalizeTag(c.raw)
			require.ErrorIs(t, err, c.err)
			require.Equal(t, c.want, got)
		})
	}
}

// Tags that look the same are one tag, and invisible text is not a tag.
//
// Invariant: tags that look the same are one tag, N(N(x)) = N(x), and an index made with an older
// rule is converted in steps, while it is read and written, to the result of a rebuild. See also
// FuzzNormalizeTag, FuzzTagsAgree, TestRetag and TestRetagsChangeNothing.
func TestLookAlikes(t *testing.T) {
	t.Parallel()
	for _, r := range []rune{0x00AD, 0x034F, 0x061C, 0x1160, 0x180E, 0x200B, 0x200D, 0x2060, 0x2800, 0x3164, 0xFE0F, 0xFEFF, 0xFFA0, 0xE0067} {
		for _, raw := range []string{"art%c", "%cart", "a%crt", "#%cart", "%c#art", "a%[1]cr%[1]ct"} {
			tag, err := event.NormalizeTag(fmt.Sprintf(raw, r))
			require.NoError(t, err, "U+%04X", r)
			require.Equal(t, "art", tag, "U+%04X", r)
		}
		_, err := event.NormalizeTag(string([]rune{r, r}))
		require.ErrorIs(t, err, event.ErrTagEmpty, "U+%04X", r)
	}
}

// TestInvisible compares the number of dropped code points with the number that Unicode's
// DerivedCoreProperties.txt lists as Default_Ignorable_Code_Point since 14.0.
func TestInvisible(t *testing.T) {
	t.Parallel()
	n := 0
	for r := range unicode.MaxRune + 1 {
		if tag, err := event.NormalizeTag("a" + string(r) + "b"); err == nil && tag == "ab" {
			n++
		}
	}
	require.Equal(t, 4174+1, n, "including U+2800")
}

// TestNormalizeTagForEveryRune checks N(N(x)) = N(x) for every character that a step changes, alone
// and next to problematic characters.
func TestNormalizeTagForEveryRune(t *testing.T) {
	t.Parallel()
	around := []string{"❤%s🔥", "🔥%s\u200d❤", "🏽%s\U000E0067\U000E007F", "%s", "#%s", "# %s#", "a%s", "%s\u0301", "\u0345%s\u0323", "%s\ufe0f", "%[1]s%[1]s"}
	for r := range unicode.MaxRune + 1 {
		changes := unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point) || unicode.ToLower(r) != r || unicode.IsSpace(r) || unicode.IsMark(r) || !norm.NFKC.IsNormalString(string(r))
		if !changes || unicode.Is(unicode.Han, r) {
			continue
		}
		for _, format := range around {
			checkNormalized(t, fmt.Sprintf(format, string(r)))
		}
	}
}

// checkNormalized checks the properties of any tag's normal form.
func checkNormalized(t *testing.T, raw string) {
	t.Helper()
	tag, err := event.NormalizeTag(raw)
	if err != nil {
		if tag != "" {
			t.Fatalf("NormalizeTag(%+q) = %+q with the error %v", raw, tag, err)
		}
		return
	}
	again, err := event.NormalizeTag(tag)
	switch {
	case err != nil:
		t.Fatalf("NormalizeTag(%+q) = %+q, which it refuses: %v", raw, tag, err)
	case again != tag:
		t.Fatalf("NormalizeTag(%+q) = %+q, which it normalizes to %+q", raw, tag, again)
	case tag == "" || len(tag) > event.MaxTagBytes || uniseg.GraphemeClusterCount(tag) > event.MaxTagGraphemes:
		t.Fatalf("NormalizeTag(%+q) = %+q of %d bytes", raw, tag, len(tag))
	case !utf8.ValidString(tag) || strings.ContainsRune(tag, 0) || !norm.NFC.IsNormalString(tag):
		t.Fatalf("NormalizeTag(%+q) = %+q, which is not plain NFC", raw, tag)
	case strings.TrimSpace(tag) != tag:
		t.Fatalf("NormalizeTag(%+q) = %+q with white space around", raw, tag)
	case tag[0] == '#' && !strings.HasPrefix(tag, "#\u20e3"):
		t.Fatalf("NormalizeTag(%+q) = %+q with its hash", raw, tag)
	}
}

func FuzzNormalizeTag(f *testing.F) {
	for _, seed := range []string{
		"", "art", "#Art", "# #x", "##\ufe0f\u20e3", "＃Ａ", "İ", "ΟΔΟΣ", "\u00b4\u00a8", "\xff\xc0#", "a\x00",
		"\u0345\u0301\u0323", "ﷺ", "\u1e9b\u0323", "#\u0338", "#\ufe0f\u200d#", "❤\ufe0f\u200d\U000E0067\U000E007F🔥", "\u2800\u1160", "🔥\u200d↔\u200d\u200b\u0338", strings.Repeat("\u0301", 40) + "#", "\u2126\u0345",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) { checkNormalized(t, raw) })
}

func TestTags(t *testing.T) {
	t.Parallel()
	var many, hundred []string
	for i := range 130 {
		many = append(many, fmt.Sprintf("#Tag%d", i))
		if i < event.MaxTagsPerPost {
			hundred = append(hundred, fmt.Sprintf("tag%d", i))
		}
	}
	for _, c := range []struct {
		name    string
		raw     []string
		want    []string
		dropped int
	}{
		{name: "none"},
		{name: "order of first appearance, no repeats", raw: []string{"B", "a", "#b", "ｂ", "A"}, want: []string{"b", "a"}},
		{name: "a bad one costs itself", raw: []string{"", "a", "x\x00", strings.Repeat("x", 65), "b"}, want: []string{"a", "b"}, dropped: 3},
		{name: "nothing left", raw: []string{"#", " "}, dropped: 2},
		{name: "the first hundred", raw: many, want: hundred, dropped: 30},
		{name: "repeats behind the hundredth", raw: append(many[:100:100], "tag0", "TAG99"), want: hundred},
		{name: "bad ones do not use up the hundred", raw: append([]string{"", "#"}, many[:100]...), want: hundred, dropped: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tags, dropped := event.Tags(c.raw)
			require.Equal(t, c.want, tags)
			require.Equal(t, c.dropped, dropped)
		})
	}
}
