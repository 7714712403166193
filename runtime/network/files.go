package network

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// HostEntry is one additional line of /etc/hosts.
type HostEntry struct {
	Name string
	IP   netip.Addr
}

// Hosts returns the content of /etc/hosts.
func Hosts(hostname string, extra []HostEntry) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost")
	if hostname != "" && hostname != "localhost" {
		b.WriteString(" " + hostname)
	}
	b.WriteString("\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	for _, e := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", e.IP, e.Name)
	}
	return b.Bytes()
}

// resolvers are used in a private network if the host's only name servers have loopback
// addresses, which containers cannot reach.
var resolvers = []string{"8.8.8.8", "8.8.4.4"}

// ResolvOptions are a build's own settings for /etc/resolv.conf. Each field that is not
// empty replaces the host's setting.
type ResolvOptions struct {
	Servers, Search, Options []string
}

// ResolvConf returns the content of /etc/resolv.conf for a mode. With Host and None, it
// is the host's file with the settings of o. With Private, name servers on loopback
// addresses are also removed. It is not an error if the host has no such file.
func ResolvConf(mode Mode, o ResolvOptions) ([]byte, error) {
	host, err := readHostConf(mode)
	if err != nil {
		return nil, err
	}
	return resolvConf(host, mode, o), nil
}

// systemdConf has the real name servers if /etc/resolv.conf names only systemd's own
// server on the loopback interface.
const systemdConf = "/run/systemd/resolve/resolv.conf"

func readHostConf(mode Mode) ([]byte, error) {
	b, err := os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read resolv.conf: %w", err)
	}
	if mode == Private && bytes.Contains(b, []byte("127.0.0.53")) {
		if real, err := os.ReadFile(systemdConf); err == nil {
			return real, nil
		}
	}
	return b, nil
}

func resolvConf(host []byte, mode Mode, o ResolvOptions) []byte {
	var b bytes.Buffer
	servers := 0
	for s := bufio.NewScanner(io.LimitReader(bytes.NewReader(host), 1<<20)); s.Scan(); {
		line := s.Text()
		f := strings.Fields(line)
		if len(f) > 1 && replaced(f, mode, o) {
			continue
		}
		if len(f) > 1 && f[0] == "nameserver" {
			servers++
		}
		b.WriteString(line + "\n")
	}
	if len(o.Search) > 0 {
		b.WriteString("search " + strings.Join(o.Search, " ") + "\n")
	}
	own := o.Servers
	if len(own) == 0 && servers == 0 && mode == Private {
		own = resolvers
	}
	for _, s := range own {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(o.Options) > 0 {
		b.WriteString("options " + strings.Join(o.Options, " ") + "\n")
	}
	return b.Bytes()
}

// replaced reports whether a line of the host's file must be left out in the container.
func replaced(f []string, mode Mode, o ResolvOptions) bool {
	switch f[0] {
	case "nameserver":
		if len(o.Servers) > 0 {
			return true
		}
		ip, err := netip.ParseAddr(f[1])
		return mode == Private && err == nil && ip.IsLoopback()
	case "search", "domain":
		return len(o.Search) > 0
	case "options":
		return len(o.Options) > 0
	}
	return false
}
