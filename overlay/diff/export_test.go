package diff

import "context"

// CloneWithLinks is Clone on a system whose linkat(2) is link.
func CloneWithLinks(link func(int, string, int, string, int) error) func(ctx context.Context, src, dst string) error {
	return func(ctx context.Context, src, dst string) error { return clone(ctx, src, dst, link) }
}

var (
	PlainCapability = plainCapability
	AppendName      = appendName
)

// DirentNames returns what a buffer of getdents64 says.
func DirentNames(buf []byte) []string {
	var names []string
	for _, e := range appendDirents(nil, buf) {
		names = append(names, e.name)
	}
	return names
}
