package diff

import "context"

// CloneWithLinks is Clone with link in place of linkat(2).
func CloneWithLinks(link func(int, string, int, string, int) error) func(ctx context.Context, src, dst string) error {
	return func(ctx context.Context, src, dst string) error { return clone(ctx, src, dst, link) }
}

var (
	PlainCapability = plainCapability
	AppendName      = appendName
)

// DirentNames returns the names in a buffer of getdents64(2).
func DirentNames(buf []byte) []string {
	var names []string
	for _, e := range appendDirents(nil, buf) {
		names = append(names, e.name)
	}
	return names
}
