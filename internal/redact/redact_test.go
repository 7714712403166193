package redact

import "testing"

func TestURLs(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "no URL: a@b": "no URL: a@b",
		"ADD https://user:secret@host/f /f # buildkit":          "ADD https://xxxxx@host/f /f # buildkit",
		"https://token@host https://host/p@1":                   "https://xxxxx@host https://host/p@1",
		"git clone 'http://u:p@h/r.git' && x http://u:q@h/s":    "git clone 'http://xxxxx@h/r.git' && x http://xxxxx@h/s",
		"http://u:p@ss@host/":                                   "http://xxxxx@host/",
		"ssh://git@host/r ssh://git:secret@host/r git@h:o/r":    "ssh://git@host/r ssh://git:xxxxx@host/r git@h:o/r",
		"docker-image://host/name:1@sha256:0123":                "docker-image://host/name:1@sha256:0123",
		"docker-image://busybox@sha256:0123 oci-layout://d@sha": "docker-image://busybox@sha256:0123 oci-layout://d@sha",
	} {
		if got := URLs(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}
