package model

import (
	"unicode"

	"github.com/rivo/uniseg"
	"golang.org/x/text/unicode/norm"
)

// Limits of tags, from the contract.
const (
	tagBytes     = 640
	tagGraphemes = 64
	tagsPerPost  = 100
)

// normalTag is a raw tag in the form in which the index keeps it; ok is false
// for a tag that it does not keep.
func normalTag(raw string) (tag string, ok bool) { return fixed(raw, normalStep) }

// fixed takes a step until nothing changes.
func fixed(raw string, step func([]rune) []rune) (tag string, ok bool) {
	tag = raw
	for {
		next := string(step([]rune(tag)))
		if next == tag {
			break
		}
		tag = next
	}
	for _, r := range tag {
		if r == 0 {
			return "", false
		}
	}
	return tag, tag != "" && len(tag) <= tagBytes && uniseg.GraphemeClusterCount(tag) <= tagGraphemes
}

// normalStep takes the contract's steps once, in its order: NFKC, lower case,
// white space, leading hash signs, what shows nothing, NFC. Doing it until nothing
// changes is what N(N(x)) = N(x) asks for.
func normalStep(raw []rune) []rune {
	return []rune(norm.NFC.String(string(withoutUnseen(bareStep(raw)))))
}

// olderStep is what ingest did before October 2026: it dropped nothing.
func olderStep(raw []rune) []rune { return []rune(norm.NFC.String(string(bareStep(raw)))) }

func bareStep(raw []rune) []rune {
	s := []rune(norm.NFKC.String(string(raw)))
	for i := range s {
		s[i] = unicode.ToLower(s[i])
	}
	for {
		for len(s) > 0 && unicode.IsSpace(s[0]) {
			s = s[1:]
		}
		for len(s) > 0 && unicode.IsSpace(s[len(s)-1]) {
			s = s[:len(s)-1]
		}
		if len(s) == 0 || s[0] != '#' || len(s) > 1 && (s[1] == 0xFE0F || s[1] == 0x20E3) {
			return s
		}
		s = s[1:]
	}
}

// normalTags are the tags that the index keeps of a post's raw ones.
func normalTags(raw []string) []string { return keptTags(raw, normalStep) }

// olderTags are those that ingest stored before October 2026.
func olderTags(raw []string) []string { return keptTags(raw, olderStep) }

func keptTags(raw []string, step func([]rune) []rune) []string {
	var tags []string
	have := map[string]bool{}
	for _, r := range raw {
		tag, ok := fixed(r, step)
		if ok && !have[tag] && len(tags) < tagsPerPost {
			have[tag] = true
			tags = append(tags, tag)
		}
	}
	return tags
}
