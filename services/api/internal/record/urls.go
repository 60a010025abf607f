package record

import (
	"net/url"
	"strings"

	"github.com/tagstream/tagstream/pkg/event"
)

const bluesky = "https://bsky.app"

// CDN is the origin of the pictures.
const CDN = "https://cdn.bsky.app"

// VideoCDN is the origin of the pictures of videos.
const VideoCDN = "https://video.bsky.app"

// The sizes of pictures on the CDN.
const (
	Thumbnail = "feed_thumbnail"
	Fullsize  = "feed_fullsize"
	Avatar    = "avatar_thumbnail" // 128 pixels
)

// ImageURL returns the URL of a picture on Bluesky's CDN, in one of its sizes.
func ImageURL(size, did, cid string) string {
	return CDN + "/img/" + size + "/plain/" + url.PathEscape(did) + "/" + cid
}

// VideoThumbURL returns the URL of a video's picture on Bluesky's CDN.
func VideoThumbURL(did, cid string) string {
	return VideoCDN + "/watch/" + url.QueryEscape(did) + "/" + cid + "/thumbnail.jpg"
}

// ProfileURL returns the URL of an account's page on bsky.app.
func ProfileURL(did string) string { return bluesky + "/profile/" + url.PathEscape(did) }

// HashtagURL returns the URL of a tag's page on bsky.app.
func HashtagURL(tag string) string { return bluesky + "/hashtag/" + url.PathEscape(tag) }

// PostURL returns the URL of a post's page on bsky.app, or "" if uri is not the at-uri of a post.
func PostURL(uri string) string {
	did, rkey, ok := PostName(uri)
	if !ok {
		return ""
	}
	return ProfileURL(did) + "/post/" + url.PathEscape(rkey)
}

// PostName splits a post's at-uri; ok is false if uri is not one.
func PostName(uri string) (did, rkey string, ok bool) {
	did, rkey, ok = strings.Cut(strings.TrimPrefix(uri, "at://"), "/"+event.Collection+"/")
	return did, rkey, ok && event.ValidDID(did) && event.ValidRkey(rkey)
}
