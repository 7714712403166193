package network

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHosts(t *testing.T) {
	got := string(Hosts("box", []HostEntry{{"db", netip.MustParseAddr("10.0.0.1")}, {"six", netip.MustParseAddr("fd00::1")}}))
	for _, want := range []string{"127.0.0.1\tlocalhost box\n", "\n::1\tlocalhost ", "\n10.0.0.1\tdb\n", "\nfd00::1\tsix\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

func TestResolvConf(t *testing.T) {
	const host = "# c\nnameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.1\nsearch a b\noptions ndots:2\n"
	tests := []struct {
		name string
		host string
		mode Mode
		opts ResolvOptions
		want string
	}{
		{"host", host, Host, ResolvOptions{}, host},
		{"none", host, None, ResolvOptions{}, host},
		{"private", host, Private, ResolvOptions{}, "# c\nnameserver 192.0.2.1\nsearch a b\noptions ndots:2\n"},
		{"private, only loopback", "nameserver 127.0.0.53\n", Private, ResolvOptions{}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{"no file", "", Host, ResolvOptions{}, ""},
		{"own", host, Host, ResolvOptions{Servers: []string{"1.1.1.1"}, Search: []string{"x"}, Options: []string{"rotate"}}, "# c\nsearch x\nnameserver 1.1.1.1\noptions rotate\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, string(resolvConf([]byte(tt.host), tt.mode, tt.opts))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseMode(t *testing.T) {
	for in, want := range map[string]Mode{"": Default, "default": Default, "host": Host, "none": None, "private": Private} {
		if got, err := ParseMode(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := ParseMode("bridge"); err == nil {
		t.Error("bridge was taken")
	}
}
