// Package bucket reads objects as streams. It supports Amazon S3 and compatible
// servers, Google Cloud Storage and Azure Blob Storage.
//
// It uses only those parts of the vendors' libraries that find credentials and sign
// requests. The requests themselves are plain HTTP. The package does no work until an
// object is opened.
package bucket

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Stores opens objects. The zero value is not usable: both fields must be set.
type Stores struct {
	// Client sends the requests.
	Client *http.Client
	// Env looks up an environment variable, as os.LookupEnv does.
	Env func(name string) (string, bool)
}

// defaultObject is the name of the object if an address names only a bucket.
const defaultObject = "context.tar.gz"

// Open returns the content of s3://BUCKET/KEY, gs://BUCKET/OBJECT or the https address
// of a blob at Azure. The caller must close the stream. Open returns an error if the
// address is not valid, no credentials can be read, or the server does not answer with
// status 200.
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

// statusError is returned for an answer with a status other than 200.
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

// stream sends a request and returns the body of the answer. If the status is not 200,
// it returns a *statusError.
func stream(client *http.Client, req *http.Request) (io.ReadCloser, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // the text is only an explanation: the status is the error
	return nil, &statusError{status: resp.Status, code: resp.StatusCode, header: resp.Header, text: strings.TrimSpace(string(text))}
}
