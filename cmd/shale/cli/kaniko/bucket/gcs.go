package bucket

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// gcsRead is the scope that a token must have.
const gcsRead = "https://www.googleapis.com/auth/devstorage.read_only"

// gcs opens an object with the application default credentials of Google. If there are
// none, the request is anonymous.
func (s Stores) gcs(ctx context.Context, bucket, object string) (io.ReadCloser, error) {
	base, client := "https://storage.googleapis.com", s.Client
	if host := s.get("STORAGE_EMULATOR_HOST"); host != "" {
		if base = host; !strings.Contains(host, "://") {
			base = "http://" + host
		}
	} else if found, err := google.FindDefaultCredentials(context.WithValue(ctx, oauth2.HTTPClient, s.Client), gcsRead); err == nil {
		client = oauth2.NewClient(context.WithValue(ctx, oauth2.HTTPClient, s.Client), found.TokenSource)
	} else if s.get("GOOGLE_APPLICATION_CREDENTIALS") != "" {
		return nil, fmt.Errorf("find credentials of Google: %w", err)
	}
	address := fmt.Sprintf("%s/storage/v1/b/%s/o/%s?alt=media", base, url.PathEscape(bucket), url.PathEscape(object))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	// Without this header, net/http would decompress objects that are stored with
	// Content-Encoding: gzip. The stored bytes are needed.
	req.Header.Set("Accept-Encoding", "gzip")
	return stream(client, req)
}
