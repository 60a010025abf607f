package record

import (
	"net/url"
	"strings"

	"github.com/tagstream/tagstream/pkg/event"
)

const bluesky = "https://bsky.app"

// CDN is the host of the pictures, as a content security policy names it.
const CDN = "https://cdn.bsky.app"

// VideoCDN is the host of the videos' pictures.
const VideoCDN = "https://video.bsky.app"

// The sizes of pictures on the CDN.
const (
	Thumbnail = "feed_thumbnail"
	Fullsize  = "feed_fullsize"
	Avatar    = "avatar_thumbnail" // 128 pixels
)

// ImageURL is a picture on Bluesky's CDN, in one of its sizes.
func ImageURL(size, did, cid string) string {
	return CDN + "/img/" + size + "/plain/" + url.PathEscape(did) + "/" + cid
}

// VideoThumbURL is a video's picture on Bluesky's CDN.
func VideoThumbURL(did, cid string) string {
	return VideoCDN + "/watch/" + url.QueryEscape(did) + "/" + cid + "/thumbnail.jpg"
}

// ProfileURL is where bsky.app shows an account.
func ProfileURL(did string) string { return bluesky + "/profile/" + url.PathEscape(did) }

// HashtagURL is where bsky.app lists the posts of a tag.
func HashtagURL(tag string) string { return bluesky + "/hashtag/" + url.PathEscape(tag) }

// PostURL is where bsky.app shows a post, and "" for what is no post's at-uri.
func PostURL(uri string) string {
	did, rkey, ok := PostName(uri)
	if !ok {
		return ""
	}
	return ProfileURL(did) + "/post/" + url.PathEscape(rkey)
}

// PostName takes a post's at-uri apart; ok is false for what is none.
func PostName(uri string) (did, rkey string, ok bool) {
	did, rkey, ok = strings.Cut(strings.TrimPrefix(uri, "at://"), "/"+event.Collection+"/")
	return did, rkey, ok && event.ValidDID(did) && event.ValidRkey(rkey)
}
