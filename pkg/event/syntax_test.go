package event_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// The examples are from the specifications, plus inputs that would break keys.

func TestValidDID(t *testing.T) {
	t.Parallel()
	for _, did := range []string{
		"did:plc:z72i7hdynmk6r22z27h6tvur", "did:web:blueskyweb.xyz", "did:method:val:two", "did:m:v", "did:method::::val",
		"did:method:-:_:.", "did:key:zQ3shZc2QzApp2oymGvQbzP8eKheVshBHbU4ZYjeXqwSKEn6N", "did:web:localhost%3A1234",
		"did:plc:" + strings.Repeat("a", 2040),
	} {
		require.True(t, event.ValidDID(did), did)
	}
	for _, did := range []string{
		"", "did", "did:", "did:plc", "did:plc:", "did::val", "DID:plc:abc", "did:METHOD:val", "did:m123:val", "did:method:val/two",
		"did:method:val?two", "did:method:val#two", "did:method:", "did:method:val:", "did:method:val%", " did:plc:abc", "did:plc:abc ",
		"did:plc:a\x00b", "did:plc:é", "did:plc:a b", "at://did:plc:abc", "did:plc:" + strings.Repeat("a", 2041),
	} {
		require.False(t, event.ValidDID(did), did)
	}
}

func TestValidRkey(t *testing.T) {
	t.Parallel()
	for _, rkey := range []string{
		"3jui7kd54zh2y", "self", "example.com", "~1.2-3_", "dHJ1ZQ", "pre:fix", "_", "...", ".a", "-", ":", strings.Repeat("a", 512),
	} {
		require.True(t, event.ValidRkey(rkey), rkey)
	}
	for _, rkey := range []string{
		"", ".", "..", "alpha/beta", "#extra", "@handle", "any space", "any+space", "number[3]", "number(3)", `"quote"`, "dHJ1ZQ==",
		"a\x00", "é", strings.Repeat("a", 513),
	} {
		require.False(t, event.ValidRkey(rkey), rkey)
	}
}

func TestValidRev(t *testing.T) {
	t.Parallel()
	for _, rev := range []string{"3jzfcijpj2z2a", "7777777777777", "3zzzzzzzzzzzz", "2222222222222", "jzzzzzzzzzzzz"} {
		require.True(t, event.ValidRev(rev), rev)
	}
	for _, rev := range []string{
		"", "3jzfcijpj2z21", "0000000000000", "3JZFCIJPJ2Z2A", "3jzfcijpj2z2aa", "3jzfcijpj2z2", "3jzf-cij-pj2z-2a", "zzzzzzzzzzzzz",
		"kjzfcijpj2z2a", "3jzfcijpj2z2\x00", "3jzfcijpj2z8a",
	} {
		require.False(t, event.ValidRev(rev), rev)
	}
}

func TestLangs(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 65)
	require.Nil(t, event.Langs(nil))
	require.Equal(t, []string{"en", "pt-BR", "EN", "en", "?"}, event.Langs([]string{"en", "", "pt-BR", "a\x00", "EN", long, "en", "\xff", "?"}))
	require.Len(t, event.Langs(strings.Split(strings.Repeat("en,", 30), ",")), event.MaxLangsPerPost)
}

func TestLangRanges(t *testing.T) {
	t.Parallel()
	many := make([]string, 0, 200)
	for i := range 200 {
		many = append(many, "l"+string(rune('a'+i/26))+string(rune('a'+i%26)))
	}
	for _, tt := range []struct {
		name  string
		langs []string
		want  []string
	}{
		{"none", nil, nil},
		{"language", []string{"en"}, []string{"en"}},
		{"region", []string{"pt-BR"}, []string{"pt", "pt-br"}},
		{"three subtags", []string{"zh-Hans-CN"}, []string{"zh", "zh-hans", "zh-hans-cn"}},
		{"shared prefix", []string{"en-US", "en", "EN-gb"}, []string{"en", "en-us", "en-gb"}},
		{"not a language", []string{"en_US", "", "1a", "abcdefghi", "日本"}, nil},
		{"what precedes a bad subtag", []string{"en-", "fr-abcdefghi", "de-1x-!"}, []string{"en", "fr", "de", "de-1x"}},
		{"private use", []string{"x-klingon", "i-default"}, []string{"x", "x-klingon", "i", "i-default"}},
		{"bounded", many, many[:event.MaxLangRanges]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, event.LangRanges(tt.langs))
			for _, r := range event.LangRanges(tt.langs) {
				lang, ok := event.NormalizeLang(r)
				require.True(t, ok)
				require.Equal(t, r, lang)
			}
		})
	}
	for _, bad := range []string{"", "*", "en-*", "en_US", "-", "en--us", "1n", "abcdefghi", "en ", "é"} {
		_, ok := event.NormalizeLang(bad)
		require.False(t, ok, bad)
	}
}

func TestRevTime(t *testing.T) {
	t.Parallel()
	for rev, want := range map[string]string{
		"2222222222222": "1970-01-01T00:00:00Z",
		"3l3qo2vutsw2b": "2024-09-09T19:46:02.251036Z", // from an event in Jetstream's documentation
		"bzzzzzzzzzzzz": "2255-06-05T23:47:34.740991Z",
	} {
		got, ok := event.RevTime(rev)
		require.True(t, ok)
		require.Equal(t, want, got.Format(time.RFC3339Nano), rev)
		first := event.RevAt(got)
		require.True(t, event.ValidRev(first), first)
		require.LessOrEqual(t, first, rev, "it must be the first one of its microsecond")
		require.Greater(t, event.RevAt(got.Add(time.Microsecond)), rev)
	}
	for _, bad := range []string{"", "3l3qo2vutsw2", "3l3qo2vutsw2b2", "zl3qo2vutsw2b", "3L3qo2vutsw2b", "3l3qo2vutsw21"} {
		_, ok := event.RevTime(bad)
		require.False(t, ok, bad)
	}
}
