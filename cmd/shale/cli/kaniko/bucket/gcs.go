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

// gcsRead is what a token has to be good for.
const gcsRead = "https://www.googleapis.com/auth/devstorage.read_only"

// gcs reads an object with Google's application default credentials; without any
// it asks anonymously.
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
	// What is stored with Content-Encoding: gzip is wanted as it is.
	req.Header.Set("Accept-Encoding", "gzip")
	return stream(client, req)
}
