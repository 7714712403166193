// Package bucket reads objects of Amazon S3 (and what speaks like it), Google
// Cloud Storage and Azure Blob Storage, as streams.
//
// Of the vendors' libraries it uses the small parts that find credentials and sign
// requests; the requests themselves are plain HTTP. Nothing happens before an
// object is asked for.
package bucket

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Stores opens objects. The zero value is not usable.
type Stores struct {
	// Client makes the requests.
	Client *http.Client
	// Env is os.LookupEnv.
	Env func(name string) (string, bool)
}

// defaultObject is what is read when an address names a bucket only.
const defaultObject = "context.tar.gz"

// Open streams s3://BUCKET/KEY, gs://BUCKET/OBJECT or the https address of a blob
// at Azure. The caller closes the stream.
func (s Stores) Open(ctx context.Context, address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("address %q: want s3://BUCKET/KEY, gs://BUCKET/OBJECT or https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB", address)
	}
	object := strings.TrimPrefix(u.Path, "/")
	if object == "" {
		object = defaultObject
	}
	var body io.ReadCloser
	switch u.Scheme {
	case "s3":
		body, err = s.s3(ctx, u.Host, object)
	case "gs":
		body, err = s.gcs(ctx, u.Host, object)
	case "https":
		body, err = s.azure(ctx, u)
	default:
		err = fmt.Errorf("no object store has addresses that begin with %s://", u.Scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", address, err)
	}
	return body, nil
}

func (s Stores) get(name string) string {
	v, _ := s.Env(name)
	return v
}

// statusError is an answer other than 200.
type statusError struct {
	status string
	code   int
	header http.Header
	text   string
}

func (e *statusError) Error() string {
	msg := "the server answers " + e.status
	if e.text != "" {
		msg += ": " + e.text
	}
	return msg
}

// stream makes a request and returns its body.
func stream(client *http.Client, req *http.Request) (io.ReadCloser, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // to say why; the status is the error
	return nil, &statusError{status: resp.Status, code: resp.StatusCode, header: resp.Header, text: strings.TrimSpace(string(text))}
}
