package event_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rivo/uniseg"
	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

func TestDisplayName(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, raw, want string }{
		{"as it is", "Alice <b>&amp;</b> 猫", "Alice <b>&amp;</b> 猫"},
		{"nothing", "", ""},
		{"white space is one space", " \t Alice\n\u2028 B\u00a0C\u3000", "Alice B C"},
		{"control characters", "A\x00l\x1b[31mi\u0085ce\x7f", "Al[31mi ce"},
		{"direction overrides", "\u202egnp.\u202ctxt\u2066\u2069\u200e\u200f\u061c", "gnp.txt"},
		{"other formatting", "soft\u00adhyphen\u200b\ufeff\u2060", "softhyphen"},
		{"emoji stay one", "👩‍👩‍👧‍👦 ❤\ufe0f 🏴󠁧󠁢󠁷󠁬󠁳󠁿", "👩‍👩‍👧‍👦 ❤\ufe0f 🏴󠁧󠁢󠁷󠁬󠁳󠁿"},
		{"letters that are not joined", "می\u200cخواهم", "می\u200cخواهم"},
		{"nothing that shows", "\u200d\ufe0f\u2800 \u3164", ""},
		{"no UTF-8", "a\xffb", "a\ufffdb"},
		{"of the most graphemes", strings.Repeat("é", 64), strings.Repeat("é", 64)},
		{"of more", strings.Repeat("x", 63) + " yz", strings.Repeat("x", 63)},
		{"of more bytes", strings.Repeat("👩‍👩‍👧‍👦", 60), strings.Repeat("👩‍👩‍👧‍👦", 640/25)},
		{"one grapheme that is too long", "e" + strings.Repeat("\u0301", 400), ""},
	} {
		require.Equal(t, c.want, event.DisplayName(c.raw), c.name)
	}
}

func FuzzDisplayName(f *testing.F) {
	for _, s := range []string{"Alice", "\u202eevil\u202c", "👩‍👩‍👧‍👦", strings.Repeat("\u0301", 700), "a\xff\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		name := event.DisplayName(raw)
		require.Equal(t, name, event.DisplayName(name))
		require.True(t, utf8.ValidString(name))
		require.LessOrEqual(t, len(name), event.MaxNameBytes)
		require.LessOrEqual(t, uniseg.GraphemeClusterCount(name), event.MaxNameGraphemes)
		require.False(t, strings.ContainsAny(name, "\x00\x1b\n\u202a\u202b\u202d\u202e\u2066\u2067\u2068"))
	})
}

func TestNormalizeHandle(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63)
	for raw, want := range map[string]string{
		"alice.example": "alice.example", "ALICE.Example": "alice.example", "a-b.c0.d": "a-b.c0.d", "xn--nxasmq6b.example": "xn--nxasmq6b.example",
		long + "." + long + "." + long + ".example": long + "." + long + "." + long + ".example",
		"handle.invalid": "", "HANDLE.INVALID": "", "": "", "alice": "", ".alice.example": "", "alice..example": "", "alice.example.": "",
		"-a.example": "", "a-.example": "", "alice.0example": "", "al ice.example": "", "alice\x00.example": "", "älice.example": "",
		"\u212aelvin.example": "", "a_b.example": "", long + "a.example": "", strings.Repeat("a.", 126) + "example": "",
	} {
		require.Equal(t, want, event.NormalizeHandle(raw), raw)
	}
}
