// Package redact removes credentials from texts that are shown or kept.
package redact

import (
	"regexp"
	"strings"
	"sync"
)

// withUser is a URL with user information (RFC 3986, section 3.2.1), up to and
// including the "@". A quote or blank ends what can be a URL in a command. Most
// processes never need it, so it is compiled when it is first used.
var withUser = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile("(?i)\\b((?:git\\+)?(?:https?|ssh)|git|ftps?)://([^\\s/?#\"'`<>]*)@")
})

// URLs replaces the user information of the URLs in text by "xxxxx", as BuildKit
// does in its own messages. The user of a URL of ssh is no secret and stays.
func URLs(text string) string {
	if !strings.Contains(text, "://") || !strings.Contains(text, "@") {
		return text
	}
	return withUser().ReplaceAllStringFunc(text, func(url string) string {
		scheme, user, _ := strings.Cut(strings.TrimSuffix(url, "@"), "://")
		name, _, password := strings.Cut(user, ":")
		switch {
		case !strings.HasSuffix(strings.ToLower(scheme), "ssh"):
			user = "xxxxx"
		case password:
			user = name + ":xxxxx"
		}
		return scheme + "://" + user + "@"
	})
}
