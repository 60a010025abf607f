package model

import "encoding/json"

// media returns the kind of media attached to a post, also next to a quoted post: image, video,
// gallery, link or none.
func (p *Post) media() string {
	embed := p.field("embed")
	if embed["$type"] == "app.bsky.embed.recordWithMedia" {
		embed, _ = embed["media"].(map[string]any)
	}
	switch embed["$type"] {
	case "app.bsky.embed.images":
		return "image"
	case "app.bsky.embed.video":
		return "video"
	case "app.bsky.embed.gallery":
		return "gallery"
	case "app.bsky.embed.external":
		return "link"
	}
	return "none"
}

// labelled reports whether the post has labels by its author.
func (p *Post) labelled() bool {
	values, _ := p.field("labels")["values"].([]any)
	for _, v := range values {
		label, _ := v.(map[string]any)
		if val, _ := label["val"].(string); val != "" {
			return true
		}
	}
	return false
}

// field returns an object of the record, empty if there is none.
func (p *Post) field(name string) map[string]any {
	var record map[string]any
	if json.Unmarshal(p.Record, &record) != nil {
		return nil
	}
	object, _ := record[name].(map[string]any)
	return object
}

// attach adds media and labels to a record, chosen by a number.
func attach(record map[string]any, n uint64) {
	n = n * 0x9e3779b97f4a7c15 >> 32
	kind := func(name string) map[string]any { return map[string]any{"$type": "app.bsky.embed." + name} }
	switch n % 9 {
	case 0, 1:
		record["embed"] = kind("images")
	case 2:
		record["embed"] = kind("video")
	case 3:
		record["embed"] = kind("gallery")
	case 4:
		record["embed"] = kind("external")
	case 5:
		record["embed"] = kind("record")
	case 6:
		both := kind("recordWithMedia")
		both["record"], both["media"] = kind("video"), kind("images")
		record["embed"] = both
	case 7:
		record["embed"] = "app.bsky.embed.images"
	}
	switch n / 9 % 5 {
	case 0:
		record["labels"] = map[string]any{"$type": "com.atproto.label.defs#selfLabels", "values": []any{map[string]any{"val": "nudity"}}}
	case 1:
		record["labels"] = map[string]any{"$type": "com.atproto.label.defs#selfLabels", "values": []any{}}
	}
}
