package model

import (
	"slices"
	"strings"
	"unicode"

	"github.com/rivo/uniseg"
	"golang.org/x/text/unicode/norm"
)

// normalTag returns the form of a raw tag in which the index keeps it; ok is false for a tag that
// it does not keep.
func normalTag(raw string) (tag string, ok bool) { return fixed(raw, normalStep) }

// fixed repeats a step until nothing changes, so that N(N(x)) = N(x).
func fixed(raw string, step func([]rune) []rune) (tag string, ok bool) {
	tag = raw
	for next := string(step([]rune(tag))); next != tag; next = string(step([]rune(tag))) {
		tag = next
	}
	if strings.Contains(tag, "\x00") {
		return "", false
	}
	return tag, tag != "" && len(tag) <= 640 && uniseg.GraphemeClusterCount(tag) <= 64
}

// normalStep applies the contract's steps once, in order.
func normalStep(raw []rune) []rune {
	return []rune(norm.NFC.String(string(withoutInvisible(bareStep(raw)))))
}

// olderStep is the rule of ingest before October 2026: it kept invisible characters.
func olderStep(raw []rune) []rune { return []rune(norm.NFC.String(string(bareStep(raw)))) }

// bareStep applies NFKC and lower case, and removes white space and leading number signs that are
// not keycaps.
func bareStep(raw []rune) []rune {
	s := []rune(norm.NFKC.String(string(raw)))
	for i := range s {
		s[i] = unicode.ToLower(s[i])
	}
	for {
		s = []rune(strings.TrimFunc(string(s), unicode.IsSpace))
		if len(s) == 0 || s[0] != '#' || len(s) > 1 && (s[1] == 0xFE0F || s[1] == 0x20E3) {
			return s
		}
		s = s[1:]
	}
}

// normalTags returns the tags that the index keeps of a post's raw ones, olderTags those that
// ingest stored before October 2026.
func normalTags(raw []string) []string { return keptTags(raw, normalStep) }
func olderTags(raw []string) []string  { return keptTags(raw, olderStep) }

func keptTags(raw []string, step func([]rune) []rune) []string {
	var tags []string
	for _, r := range raw {
		if tag, ok := fixed(r, step); ok && !slices.Contains(tags, tag) && len(tags) < 100 {
			tags = append(tags, tag)
		}
	}
	return tags
}

// invisible are the code points that are not displayed: Default_Ignorable_Code_Point, copied from
// Unicode's DerivedCoreProperties.txt, and U+2800.
var invisible = [][2]rune{
	{0x00AD, 0x00AD}, {0x034F, 0x034F}, {0x061C, 0x061C}, {0x115F, 0x1160}, {0x17B4, 0x17B5}, {0x180B, 0x180F}, {0x200B, 0x200F},
	{0x202A, 0x202E}, {0x2060, 0x206F}, {0x2800, 0x2800}, {0x3164, 0x3164}, {0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0},
	{0xFFF0, 0xFFF8}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF},
}

// emoji are the code points of Extended_Pictographic in Unicode's emoji-data.txt.
var emoji = [][2]rune{
	{0x00A9, 0x00A9}, {0x00AE, 0x00AE}, {0x203C, 0x203C}, {0x2049, 0x2049}, {0x2122, 0x2122}, {0x2139, 0x2139}, {0x2194, 0x2199},
	{0x21A9, 0x21AA}, {0x231A, 0x231B}, {0x2328, 0x2328}, {0x2388, 0x2388}, {0x23CF, 0x23CF}, {0x23E9, 0x23F3}, {0x23F8, 0x23FA},
	{0x24C2, 0x24C2}, {0x25AA, 0x25AB}, {0x25B6, 0x25B6}, {0x25C0, 0x25C0}, {0x25FB, 0x25FE}, {0x2600, 0x2605}, {0x2607, 0x2612},
	{0x2614, 0x2685}, {0x2690, 0x2705}, {0x2708, 0x2712}, {0x2714, 0x2714}, {0x2716, 0x2716}, {0x271D, 0x271D}, {0x2721, 0x2721},
	{0x2728, 0x2728}, {0x2733, 0x2734}, {0x2744, 0x2744}, {0x2747, 0x2747}, {0x274C, 0x274C}, {0x274E, 0x274E}, {0x2753, 0x2755},
	{0x2757, 0x2757}, {0x2763, 0x2767}, {0x2795, 0x2797}, {0x27A1, 0x27A1}, {0x27B0, 0x27B0}, {0x27BF, 0x27BF}, {0x2934, 0x2935},
	{0x2B05, 0x2B07}, {0x2B1B, 0x2B1C}, {0x2B50, 0x2B50}, {0x2B55, 0x2B55}, {0x3030, 0x3030}, {0x303D, 0x303D}, {0x3297, 0x3297},
	{0x3299, 0x3299}, {0x1F000, 0x1F0FF}, {0x1F10D, 0x1F10F}, {0x1F12F, 0x1F12F}, {0x1F16C, 0x1F171}, {0x1F17E, 0x1F17F},
	{0x1F18E, 0x1F18E}, {0x1F191, 0x1F19A}, {0x1F1AD, 0x1F1E5}, {0x1F201, 0x1F20F}, {0x1F21A, 0x1F21A}, {0x1F22F, 0x1F22F},
	{0x1F232, 0x1F23A}, {0x1F23C, 0x1F23F}, {0x1F249, 0x1F3FA}, {0x1F400, 0x1F53D}, {0x1F546, 0x1F64F}, {0x1F680, 0x1F6FF},
	{0x1F774, 0x1F77F}, {0x1F7D5, 0x1F7FF}, {0x1F80C, 0x1F80F}, {0x1F848, 0x1F84F}, {0x1F85A, 0x1F85F}, {0x1F888, 0x1F88F},
	{0x1F8AE, 0x1F8FF}, {0x1F90C, 0x1F93A}, {0x1F93C, 0x1F945}, {0x1F947, 0x1FAFF}, {0x1FC00, 0x1FFFD},
}

func within(ranges [][2]rune, r rune) bool {
	for _, lohi := range ranges {
		if lohi[0] <= r && r <= lohi[1] {
			return true
		}
	}
	return false
}

const (
	joiner  = 0x200D
	tagsEnd = 0xE007F
)

func isTagChar(r rune) bool { return 0xE0020 <= r && r < tagsEnd }

// withoutInvisible drops invisible characters, except for joiners between two emoji, and for tag
// characters after one up to their terminator. Other invisible characters in between are ignored.
func withoutInvisible(raw []rune) []rune {
	var s []rune
	for _, r := range raw {
		if !within(invisible, r) || r == joiner || isTagChar(r) || r == tagsEnd {
			s = append(s, r)
		}
	}
	var out []rune
	for i := 0; i < len(s); i++ {
		if !isTagChar(s[i]) && s[i] != tagsEnd {
			out = append(out, s[i])
			continue
		}
		run := i
		for i < len(s) && isTagChar(s[i]) {
			i++
		}
		if i == len(s) || s[i] != tagsEnd {
			i-- // the next character is not part of the sequence
			continue
		}
		if i > run && afterEmoji(out) {
			out = append(out, s[run:i+1]...)
		}
	}
	var end []rune
	for i, r := range out {
		if r != joiner || i+1 < len(out) && within(emoji, out[i+1]) && afterEmoji(end) {
			end = append(end, r)
		}
	}
	return end
}

// afterEmoji reports whether s ends with an emoji, or with one that has a skin tone.
func afterEmoji(s []rune) bool {
	n := len(s)
	if n > 1 && 0x1F3FB <= s[n-1] && s[n-1] <= 0x1F3FF {
		n--
	}
	return n > 0 && within(emoji, s[n-1])
}
