// Package redact removes credentials from texts that are shown or stored.
package redact

import (
	"regexp"
	"strings"
	"sync"
)

// withUser matches a URL with user information (RFC 3986, section 3.2.1), up to and
// including the "@". In a command, a quote or blank ends a URL. Most processes never need
// the expression, so it is compiled on first use.
var withUser = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile("(?i)\\b((?:git\\+)?(?:https?|ssh)|git|ftps?)://([^\\s/?#\"'`<>]*)@")
})

// URLs replaces the user information of the URLs in text by "xxxxx", as BuildKit does in
// its own messages. The user name of an ssh URL is not secret and is kept; only its
// password is replaced.
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
