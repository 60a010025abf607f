package event_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tagstream/tagstream/pkg/event"
)

// Invariant: the traits of a record are computed in one place, for new posts, stored posts and
// those of a rebuild. See also FuzzTraitsOf and TestFillTraits.
func TestTraitsOf(t *testing.T) {
	t.Parallel()
	for record, want := range map[string]event.Traits{
		`{}`:                   0,
		``:                     0,
		`[]`:                   0,
		`null`:                 0,
		`{"text":"hello"}`:     0,
		`{"embed":null}`:       0,
		`{"embed":"images"}`:   0,
		`{"embed":{}}`:         0,
		`{"embed":{"$type":`:   0,
		`{"embed":{"$type":7}`: 0,
		`{"embed":{"$type":"app.bsky.embed.images","images":[{"alt":"} \" ]"}]}}`:                                                                           event.HasImage,
		`{"embed":{"images":[],"$type":"app.bsky.embed.images"}}`:                                                                                           event.HasImage,
		` { "embed" : { "$type" : "app.bsky.embed.video" } , "text" : "" } `:                                                                                event.HasVideo,
		`{"text":"{\"embed\":{}}","embed":{"$type":"app.bsky.embed.gallery","items":[]}}`:                                                                   event.HasGallery,
		`{"embed":{"$type":"app.bsky.embed.external","external":{"uri":"https://a.example"}}}`:                                                              event.HasLink,
		`{"embed":{"$type":"app.bsky.embed.record","record":{"$type":"app.bsky.embed.images"}}}`:                                                            0,
		`{"embed":{"$type":"app.bsky.embed.recordWithMedia","media":{"$type":"app.bsky.embed.images"},"record":{}}}`:                                        event.HasImage,
		`{"embed":{"media":{"$type":"app.bsky.embed.external"},"$type":"app.bsky.embed.recordWithMedia"}}`:                                                  event.HasLink,
		`{"embed":{"$type":"app.bsky.embed.recordWithMedia"}}`:                                                                                              0,
		`{"embed":{"$type":"app.bsky.embed.images","media":{"$type":"app.bsky.embed.video"}}}`:                                                              event.HasImage,
		`{"embed":{"$type":"app.bsky.embed.recordWithMedia","media":{"$type":"app.bsky.embed.recordWithMedia","media":{"$type":"app.bsky.embed.images"}}}}`: 0,
		`{"embed":{"$type":"app.bsky.embed.\u0069mages"}}`:                                                                                                  event.HasImage,
		`{"emb\u0065d":{"$type":"app.bsky.embed.images"}}`:                                                                                                  event.HasImage,
		`{"Embed":{"$type":"app.bsky.embed.images"}}`:                                                                                                       0,
		`{"reply":{"embed":{"$type":"app.bsky.embed.images"}}}`:                                                                                             0,
		`{"embed":{"$type":"app.bsky.embed.images"},"embed":{"$type":"app.bsky.embed.video"}}`:                                                              event.HasVideo,
		`{"labels":{"$type":"com.atproto.label.defs#selfLabels","values":[{"val":"nudity"}]}}`:                                                              event.SelfLabelled,
		`{"labels":{"$type":"com.atproto.label.defs#selfLabels","values":[]}}`:                                                                              0,
		`{"labels":{"values":[{"val":""},{"val":7},"x",null]}}`:                                                                                             0,
		`{"labels":{"values":[{"val":""},{"val":"porn","cts":1}]},"embed":{"$type":"app.bsky.embed.video"}}`:                                                event.SelfLabelled | event.HasVideo,
		`{"labels":[{"val":"porn"}]}`:       0,
		`{"labels":{"values":{"val":"x"}}}`: 0,
	} {
		require.Equal(t, want, event.TraitsOf([]byte(record)), record)
	}
}

// FuzzTraitsOf compares TraitsOf with a plain decoding of the whole record.
func FuzzTraitsOf(f *testing.F) {
	for _, seed := range []string{
		`{"embed":{"$type":"app.bsky.embed.images"}}`,
		`{"embed":{"$type":"app.bsky.embed.recordWithMedia","media":{"$type":"app.bsky.embed.video"}},"labels":{"values":[{"val":"a"}]}}`,
		`{"text":"\\\"","embed" : {"$type":"app.bsky.embed.\u0069mages","x":[1,{"y":"}"}]}}`, `{"":1,"embed":2}`, `{"a":1e5,"embed":true}`, `{`, `{"a"`, `{"a":`, `{"a":"\`, `[1,2`, `{"labels":{"values":[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, record []byte) {
		got := event.TraitsOf(record)
		if json.Valid(record) {
			require.Equal(t, plainTraits(record), got, "%s", record)
		}
	})
}

func plainTraits(record []byte) (traits event.Traits) {
	var whole any
	if json.Unmarshal(record, &whole) != nil {
		return 0 // nested too deeply for encoding/json
	}
	object := func(v any) map[string]any { o, _ := v.(map[string]any); return o }
	embed := object(object(whole)["embed"])
	if embed["$type"] == "app.bsky.embed.recordWithMedia" {
		embed = object(embed["media"])
	}
	switch embed["$type"] {
	case "app.bsky.embed.images":
		traits = event.HasImage
	case "app.bsky.embed.video":
		traits = event.HasVideo
	case "app.bsky.embed.gallery":
		traits = event.HasGallery
	case "app.bsky.embed.external":
		traits = event.HasLink
	}
	values, _ := object(object(whole)["labels"])["values"].([]any)
	for _, v := range values {
		if val, ok := object(v)["val"].(string); ok && val != "" {
			traits |= event.SelfLabelled
		}
	}
	return traits
}

func BenchmarkTraitsOf(b *testing.B) {
	record := []byte(`{"$type":"app.bsky.feed.post","text":"A heron by the water this morning, and nobody else there. #art #photo #birds","langs":["en"],"createdAt":"2026-11-20T21:44:58.201Z","facets":[{"index":{"byteStart":57,"byteEnd":61},"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"art"}]},{"index":{"byteStart":62,"byteEnd":68},"features":[{"$type":"app.bsky.richtext.facet#tag","tag":"photo"}]}],"embed":{"$type":"app.bsky.embed.images","images":[{"alt":"A heron","image":{"$type":"blob","ref":{"$link":"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"},"mimeType":"image/jpeg","size":812345},"aspectRatio":{"width":2000,"height":1500}}]}}`)
	b.SetBytes(int64(len(record)))
	for b.Loop() {
		if event.TraitsOf(record) != event.HasImage {
			b.Fatal("no image")
		}
	}
}
