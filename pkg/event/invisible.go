package event

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// Characters in emoji that the rules for tags must know.
const (
	zwj           = '\u200D'
	keycap        = '\u20E3'
	emojiSelector = '\uFE0F'
	firstTone     = '\U0001F3FB'
	lastTone      = '\U0001F3FF'
	firstTagChar  = '\U000E0020'
	lastTagChar   = '\U000E007E'
	endOfTagChars = '\U000E007F'
	blankBraille  = '\u2800'
)

// shown are the characters of class Cf that are not ignorable: signs that span the characters after
// them, interlinear annotations, and the layout of hieroglyphs.
var shown = &unicode.RangeTable{
	R16: []unicode.Range16{{Lo: 0xFFF9, Hi: 0xFFFB, Stride: 1}},
	R32: []unicode.Range32{{Lo: 0x13430, Hi: 0x13440, Stride: 1}},
}

// invisible reports whether a character alone shows nothing: it is a Default_Ignorable_Code_Point,
// as Unicode derives that property, or the Braille pattern without dots.
func invisible(r rune) bool {
	if r < 0x80 {
		return false
	}
	return r == blankBraille ||
		unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Cf, unicode.Variation_Selector) &&
			!unicode.In(r, unicode.White_Space, unicode.Prepended_Concatenation_Mark, shown)
}

// dropInvisible drops invisible characters except those that make one emoji of several characters:
// a zero width joiner between two emoji, and tag characters with their terminator (U+E007F) after
// an emoji, as in the flag of Wales. The emoji before them may have a skin tone. Other invisible
// characters between them do not break the sequence.
func dropInvisible(s string) string {
	if strings.IndexFunc(s, invisible) < 0 {
		return s
	}
	return dropJoiners(dropTagChars(strings.Map(func(r rune) rune {
		if invisible(r) && r != zwj && (r < firstTagChar || r > endOfTagChars) {
			return -1
		}
		return r
	}, s)))
}

// dropTagChars drops tag characters that do not follow an emoji or have no terminator.
func dropTagChars(s string) string {
	var b strings.Builder
	for s != "" {
		r, size := utf8.DecodeRuneInString(s)
		if r < firstTagChar || r > endOfTagChars {
			b.WriteString(s[:size])
			s = s[size:]
			continue
		}
		rest := strings.TrimLeftFunc(s, func(r rune) bool { return r >= firstTagChar && r <= lastTagChar })
		run := s[:len(s)-len(rest)]
		rest, ended := strings.CutPrefix(rest, string(endOfTagChars))
		if ended && run != "" && endsInEmoji(b.String()) {
			b.WriteString(run)
			b.WriteRune(endOfTagChars)
		}
		s = rest
	}
	return b.String()
}

// dropJoiners drops zero width joiners that are not between two emoji.
func dropJoiners(s string) string {
	var b strings.Builder
	for i, r := range s {
		if r == zwj {
			if next, _ := utf8.DecodeRuneInString(s[i+len(string(zwj)):]); !isEmoji(next) || !endsInEmoji(b.String()) {
				continue
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}

// endsInEmoji reports whether a text ends in an emoji, with or without a skin tone.
func endsInEmoji(s string) bool {
	r, size := utf8.DecodeLastRuneInString(s)
	if isEmoji(r) {
		return true
	}
	if r < firstTone || r > lastTone {
		return false
	}
	r, _ = utf8.DecodeLastRuneInString(s[:len(s)-size])
	return isEmoji(r)
}

// isEmoji reports whether a character is an Extended_Pictographic, for which the standard library
// has no table. Only then does a joiner make one cluster of it and an emoji.
func isEmoji(r rune) bool {
	return r >= 0x80 && uniseg.GraphemeClusterCount(string(r)+string(zwj)+"❤") == 1
}
