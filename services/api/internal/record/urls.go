package record

import (
	"net/url"
	"strings"

	"github.com/tagstream/tagstream/pkg/event"
)

const bluesky = "https://bsky.app"

// CDN is the host of the pictures, as a content security policy names it.
const CDN = "https://cdn.bsky.app"

// The sizes of pictures on the CDN.
const (
	Thumbnail = "feed_thumbnail"
	Fullsize  = "feed_fullsize"
	Avatar    = "avatar"
)

// ImageURL is a picture on Bluesky's CDN, in one of its sizes.
func ImageURL(size, did, cid string) string {
	return CDN + "/img/" + size + "/plain/" + url.PathEscape(did) + "/" + cid
}

// ProfileURL is where bsky.app shows an account.
func ProfileURL(did string) string { return bluesky + "/profile/" + url.PathEscape(did) }

// HashtagURL is where bsky.app lists the posts of a tag.
func HashtagURL(tag string) string { return bluesky + "/hashtag/" + url.PathEscape(tag) }

// PostURL is where bsky.app shows a post, and "" for what is no post's at-uri.
func PostURL(uri string) string {
	did, rkey, ok := strings.Cut(strings.TrimPrefix(uri, "at://"), "/"+event.Collection+"/")
	if !ok || !event.ValidDID(did) || !event.ValidRkey(rkey) {
		return ""
	}
	return ProfileURL(did) + "/post/" + url.PathEscape(rkey)
}
