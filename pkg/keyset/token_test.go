package keyset

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const urlAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func testKey(t testing.TB, id string) Key {
	t.Helper()
	k, err := NewKey(id, bytes.Repeat([]byte(id), MinSecret))
	require.NoError(t, err)
	return k
}

func testCodec(t testing.TB, ids ...string) *Codec {
	t.Helper()
	var keys []Key
	for _, id := range ids {
		keys = append(keys, testKey(t, id))
	}
	c, err := NewCodec(keys...)
	require.NoError(t, err)
	return c
}

func samplePositions() map[string]Position {
	return map[string]Position{
		"start":    Start(),
		"end":      End(),
		"uuid":     Below(UUID([16]byte{1, 2, 3, 15: 255})),
		"null":     Above(Null()),
		"integers": At(Int64(math.MinInt64), Int64(-1), Int64(0), Int64(math.MaxInt64)),
		"floats":   At(Float64(math.Copysign(0, -1)), Float64(math.NaN()), Float64(math.Inf(-1)), Float64(1.5)),
		"texts":    Below(Text(""), Text("art"), Text("a\x00\xff\n#,é"), Text(strings.Repeat("x", 200))),
		"the rest": Above(Bool(true), Bool(false), Time(time.Date(2026, 11, 20, 1, 2, 3, 456789000, time.UTC)), Null(), Time(time.Unix(-1, 0))),
	}
}

func TestTokenRoundTrip(t *testing.T) {
	t.Parallel()
	c := testCodec(t, "k1")
	for name, p := range samplePositions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := c.Encode(p, Fingerprint{7})
			require.Empty(t, strings.Trim(token, urlAlphabet))
			require.Equal(t, token, c.Encode(p, Fingerprint{7}), "the same place has one token")
			got, err := c.Decode(token, Fingerprint{7})
			require.NoError(t, err)
			require.True(t, p.Equal(got), "%v is not %v", got, p)
			_, err = c.Decode(token, Fingerprint{8})
			require.ErrorIs(t, err, ErrTokenMismatch)
			require.NotErrorIs(t, err, ErrBadToken)
		})
	}
}

// Tokens never expire: this one was made by the first version.
func TestTokenGolden(t *testing.T) {
	t.Parallel()
	c := testCodec(t, "k1")
	p := Below(Int64(-12), Text("art"), Null(), Bool(true), UUID([16]byte{1, 2, 3}), Time(time.UnixMicro(5)), Float64(1.5))
	const golden = "AWq58esBAgMAAAAAAAAAAAAAAAAAAwH_________9AIAAAADYXJ0AAMBBgECAwAAAAAAAAAAAAAAAAAFAAAAAAAAAAUEP_gAAAAAAABReAImrJrjtV7_kOhSWmry"
	require.Equal(t, golden, c.Encode(p, Fingerprint{1, 2, 3}))
	got, err := c.Decode(golden, Fingerprint{1, 2, 3})
	require.NoError(t, err)
	require.True(t, p.Equal(got))
}

// The most common kind of token is short enough to read a URL aloud.
func TestTokenLength(t *testing.T) {
	t.Parallel()
	require.Len(t, testCodec(t, "k1").Encode(Below(UUID([16]byte{})), Fingerprint{}), 74)
}

func TestTamperedTokenIsRefused(t *testing.T) {
	t.Parallel()
	c := testCodec(t, "k1", "k2")
	for name, p := range samplePositions() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := c.Encode(p, Fingerprint{7})
			refused := func(changed, how string, at int) {
				_, err := c.Decode(changed, Fingerprint{7})
				require.ErrorIs(t, err, ErrBadToken, "%s at %d", how, at)
			}
			for i := range token {
				// Every other character at that place; a sample of them in long tokens.
				for j := 0; j < len(urlAlphabet); j += 1 + len(token)/400 {
					if urlAlphabet[j] != token[i] {
						refused(token[:i]+urlAlphabet[j:j+1]+token[i+1:], "changed", i)
					}
				}
				for _, odd := range []string{"=", "+", "/", " ", "\n", "\r", "\x00", "é", "."} {
					refused(token[:i]+odd+token[i+1:], "changed to "+odd, i)
					refused(token[:i]+odd+token[i:], "inserted "+odd, i)
				}
				refused(token[:i], "cut", i)
				refused(token[i+1:], "beheaded", i)
				refused(token[:i]+token[i+1:], "dropped", i)
			}
			for _, odd := range []string{"A", "AA", "AAA", "AAAA", "=", "==", "\n"} {
				refused(token+odd, "appended "+odd, len(token))
			}
			raw, err := base64.RawURLEncoding.DecodeString(token)
			require.NoError(t, err)
			for i := range raw {
				for bit := range 8 {
					changed := bytes.Clone(raw)
					changed[i] ^= 1 << bit
					refused(base64.RawURLEncoding.EncodeToString(changed), "flipped bit", i)
				}
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	c := testCodec(t, "k1")
	at := c.atOnce
	for name, test := range map[string]struct{ token, want string }{
		"empty":                  {"", "too short"},
		"too long":               {strings.Repeat("A", MaxToken+1), "longer than 4096 characters"},
		"longest":                {strings.Repeat("A", MaxToken), "unknown version"},
		"not base64":             {"not a token!", "not URL-safe base64"},
		"another alphabet":       {"++++" + strings.Repeat("A", 80), "not URL-safe base64"},
		"padded":                 {c.Encode(Start(), Fingerprint{}) + "=", "not URL-safe base64"},
		"wrapped":                {c.Encode(Start(), Fingerprint{}) + "\r\n", "not URL-safe base64"},
		"another version":        {at(2, 0, nil), "unknown version"},
		"another key":            {testCodec(t, "k9").Encode(Start(), Fingerprint{}), "unknown key"},
		"unknown side":           {at(tokenVersion, 9, nil), "no such position"},
		"side without a key":     {at(tokenVersion, SideAt, nil), "no such position"},
		"end with a key":         {at(tokenVersion, SideEnd, []byte{0}), "no such position"},
		"unknown type":           {at(tokenVersion, SideAt, []byte{99}), "malformed values"},
		"short integer":          {at(tokenVersion, SideAt, []byte{1, 0, 0}), "malformed values"},
		"short uuid":             {at(tokenVersion, SideAt, []byte{6, 0, 0}), "malformed values"},
		"short length":           {at(tokenVersion, SideAt, []byte{2, 0, 0, 0}), "malformed values"},
		"short text":             {at(tokenVersion, SideAt, []byte{2, 0, 0, 0, 2, 'a'}), "malformed values"},
		"huge text":              {at(tokenVersion, SideAt, []byte{2, 255, 255, 255, 255, 'a'}), "malformed values"},
		"no boolean":             {at(tokenVersion, SideAt, []byte{3}), "malformed values"},
		"boolean of two":         {at(tokenVersion, SideAt, []byte{3, 2}), "malformed values"},
		"more values than fit":   {at(tokenVersion, SideAt, make([]byte, MaxColumns+1)), "malformed values"},
		"key longer than bounds": {c.Encode(At(Text(strings.Repeat("x", 3100))), Fingerprint{}), "longer than 4096 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.Decode(test.token, Fingerprint{})
			require.ErrorIs(t, err, ErrBadToken)
			require.NotErrorIs(t, err, ErrTokenMismatch)
			require.ErrorContains(t, err, test.want)
		})
	}
	t.Run("longest key that fits", func(t *testing.T) {
		t.Parallel()
		p := At(Text(strings.Repeat("x", 3000)))
		got, err := c.Decode(c.Encode(p, Fingerprint{}), Fingerprint{})
		require.NoError(t, err)
		require.True(t, p.Equal(got))
	})
}

// atOnce signs arbitrary content, which Encode would never do.
func (c *Codec) atOnce(version byte, side Side, values []byte) string {
	b := append([]byte{version}, c.signing.tag[:]...)
	b = append(b, make([]byte, len(Fingerprint{}))...)
	b = append(b, byte(side))
	b = append(b, values...)
	return base64.RawURLEncoding.EncodeToString(c.signing.sign(b, b))
}

func TestKeyRotation(t *testing.T) {
	t.Parallel()
	p, f := Below(Int64(5)), Fingerprint{1}
	before, added, switched, after := testCodec(t, "old"), testCodec(t, "old", "new"), testCodec(t, "new", "old"), testCodec(t, "new")

	require.Equal(t, before.Encode(p, f), added.Encode(p, f), "the first key signs")
	require.Equal(t, after.Encode(p, f), switched.Encode(p, f))
	for _, c := range []*Codec{before, added, switched} {
		_, err := c.Decode(before.Encode(p, f), f)
		require.NoError(t, err)
	}
	for _, c := range []*Codec{added, switched, after} {
		_, err := c.Decode(after.Encode(p, f), f)
		require.NoError(t, err)
	}
	_, err := after.Decode(before.Encode(p, f), f)
	require.ErrorIs(t, err, ErrBadToken)

	// The same id with another secret is another key.
	k, err := NewKey("old", bytes.Repeat([]byte("z"), MinSecret))
	require.NoError(t, err)
	other, err := NewCodec(k)
	require.NoError(t, err)
	_, err = other.Decode(before.Encode(p, f), f)
	require.ErrorContains(t, err, "wrong signature")
}

func TestCodecIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	c := testCodec(t, "k1")
	done := make(chan error, 8)
	for i := range cap(done) {
		go func() {
			var failed error
			for n := range 200 {
				p := At(Int64(int64(i*1000 + n)))
				got, err := c.Decode(c.Encode(p, Fingerprint{}), Fingerprint{})
				if err != nil || !p.Equal(got) {
					failed = errors.Join(failed, errors.New("token came back as another"), err)
				}
			}
			done <- failed
		}()
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
}

// FuzzDecode passes arbitrary text to Decode: it never panics, and Encode reproduces every accepted
// token exactly.
func FuzzDecode(f *testing.F) {
	c := testCodec(f, "k1")
	for _, p := range samplePositions() {
		f.Add(c.Encode(p, Fingerprint{7}))
	}
	f.Add("")
	f.Add(strings.Repeat("A", MaxToken+1))
	f.Fuzz(func(t *testing.T, token string) {
		check(t, c, token)
		// As the content of a signed token, so that the values are reached.
		b := append([]byte{tokenVersion}, c.signing.tag[:]...)
		f := Fingerprint{7}
		b = append(append(b, f[:]...), token...)
		check(t, c, base64.RawURLEncoding.EncodeToString(c.signing.sign(b, b)))
	})
}

func check(t *testing.T, c *Codec, token string) {
	p, err := c.Decode(token, Fingerprint{7})
	if err != nil {
		if !errors.Is(err, ErrBadToken) && !errors.Is(err, ErrTokenMismatch) {
			t.Fatalf("Decode(%q) fails with %v", token, err)
		}
		return
	}
	if again := c.Encode(p, Fingerprint{7}); again != token {
		t.Fatalf("Decode takes %q, which Encode writes as %q", token, again)
	}
}

func FuzzRoundTrip(f *testing.F) {
	c := testCodec(f, "k1")
	f.Add(int64(-1), "art", true, 1.5, int64(1), []byte("0123456789abcdef"), uint8(3), uint8(2))
	f.Add(int64(0), "", false, math.NaN(), int64(math.MinInt64), []byte{}, uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, i int64, s string, b bool, x float64, micros int64, id []byte, side, n uint8) {
		var uuid [16]byte
		copy(uuid[:], id)
		p := Position{Side: Side(side % 5)}
		if p.Side >= SideAbove {
			p.Key = []Value{UUID(uuid), Text(s), Null(), Int64(i), Bool(b), Float64(x), Time(time.UnixMicro(micros))}[:1+n%7]
		}
		fingerprint := Fingerprint(uuid)
		token := c.Encode(p, fingerprint)
		got, err := c.Decode(token, fingerprint)
		if len(token) > MaxToken {
			require.ErrorIs(t, err, ErrBadToken)
			return
		}
		require.NoError(t, err)
		require.True(t, p.Equal(got), "%v is not %v", got, p)
		for i, v := range got.Key {
			if want := p.Key[i].Arg(); want == want { // not NaN
				require.Equal(t, want, v.Arg())
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	c := testCodec(b, "k1")
	b.ReportAllocs()
	var key [16]byte
	for b.Loop() {
		key[0]++
		c.Encode(At(UUID(key)), Fingerprint{})
	}
}

func BenchmarkDecode(b *testing.B) {
	c := testCodec(b, "k1")
	token := c.Encode(At(UUID([16]byte{1})), Fingerprint{})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Decode(token, Fingerprint{}); err != nil {
			b.Fatal(err)
		}
	}
}
