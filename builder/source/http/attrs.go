package http

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// ParseAttrs parses the attributes of a source operation. It returns an error for an
// unknown attribute, so that no option is ignored.
func ParseAttrs(attrs map[string]string) (Options, error) {
	var o Options
	for key, value := range attrs {
		var err error
		switch key {
		case "http.checksum":
			o.Checksum, err = digest.Parse(value)
		case "http.authheadersecret":
			o.AuthSecret = value
		case "http.filename":
			o.Filename = value
		case "http.perm":
			o.Perm, err = number(value, 0o7777)
		case "http.uid":
			o.UID, err = number(value, 1<<32-2)
		case "http.gid":
			o.GID, err = number(value, 1<<32-2)
		case "http.header.accept", "http.header.user-agent":
			if o.Header == nil {
				o.Header = http.Header{}
			}
			o.Header.Set(strings.TrimPrefix(key, "http.header."), value)
		default:
			err = fmt.Errorf("unknown attribute")
		}
		if err != nil {
			return Options{}, fmt.Errorf("attribute %s=%q of http source: %w", key, value, err)
		}
	}
	return o, nil
}

// number parses a number. Its prefix selects the base.
func number(s string, limit uint64) (*uint32, error) {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("above %d", limit)
	}
	v := uint32(n)
	return &v, nil
}
