package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/stall"
)

// Options are the options of a download. The zero value is valid.
type Options struct {
	// Checksum is the digest that the content must have. It is "" for any content.
	Checksum digest.Digest
	// Filename is the name of the file. If it is "", the name comes from the URL.
	Filename string
	// Perm is the mode. If it is nil, the mode is 0600.
	Perm *uint32
	// UID and GID are the owner of the file. A nil id is that of the current user.
	UID, GID *uint32
	// Header is sent to the host of the URL. It is not sent to another host after a
	// redirect.
	Header http.Header
	// ETag is the ETag of an earlier download, and Since is its modification time. If the
	// file has not changed since, the result is ErrNotModified.
	ETag  string
	Since time.Time
	// AuthSecret is the ID of the secret for authorization. If it is "", the secret is
	// selected by the host.
	AuthSecret string
	// MaxSize is the maximum size of the content in bytes. If it is 0, there is no limit.
	MaxSize int64
	// Transport sends the requests. If it is nil, http.DefaultTransport with the system's
	// proxies is used.
	Transport http.RoundTripper
	// Spooled maps URLs to local files with their content.
	Spooled map[string]string
}

// Meta describes a downloaded file.
type Meta struct {
	Digest digest.Digest
	// LastModified is the time that the host sent. If the host did not send one, it is
	// the Unix epoch, and Dated is false.
	LastModified time.Time
	Dated        bool
	// Steady reports whether LastModified was at least one minute old at the time of the
	// answer. Only then does every later change of the content get another time.
	Steady bool
	ETag   string
	Size   int64
}

var (
	// ErrNotModified is returned if the file has not changed since Options.ETag or
	// Options.Since.
	ErrNotModified = errors.New("not modified")
	// ErrTooLarge is returned if the content exceeds Options.MaxSize.
	ErrTooLarge = errors.New("content too large")
)

// StatusError is returned if the status code of the answer is not 2xx.
type StatusError struct{ Code int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("invalid response status %d", e.Code)
}

// ChecksumError is returned if the content does not have the requested digest.
type ChecksumError struct{ Got, Want digest.Digest }

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("digest mismatch %s: %s", e.Got, e.Want)
}

const (
	maxRedirects = 10
	// unnamed is the file's name if neither the options nor the URL have one.
	unnamed = "download"
)

// Fetch downloads rawURL to a file in dir and returns its path. If it returns an error,
// no file is left in dir. The errors are ErrNotModified, ErrTooLarge, *StatusError,
// *ChecksumError, or errors of the transport and the file system.
func Fetch(ctx context.Context, rawURL string, opts Options, dir string) (string, Meta, error) {
	if file, ok := opts.Spooled[rawURL]; ok {
		return fetchSpooled(file, rawURL, opts, dir)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", Meta{}, errors.New("parse URL: malformed") // url.Parse's error would contain credentials
	}
	file, meta, err := fetch(ctx, u, opts, dir)
	if err != nil {
		return "", Meta{}, fmt.Errorf("fetch %s: %w", u.Redacted(), err)
	}
	return file, meta, nil
}

func fetch(ctx context.Context, u *url.URL, opts Options, dir string) (_ string, _ Meta, err error) {
	name, err := fileName(opts.Filename, u)
	if err != nil {
		return "", Meta{}, err
	}
	ctx, watch := stall.New(ctx)
	defer watch.Stop()
	resp, err := request(ctx, http.MethodGet, u, opts)
	if err != nil {
		return "", Meta{}, watch.Cause(err)
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	meta := Meta{ETag: resp.Header.Get("ETag"), LastModified: time.Unix(0, 0)}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		meta.LastModified, meta.Dated = t, true
		meta.Steady = steady(t, resp.Header.Get("Date"))
	}
	file, err := save(watch.Reader(resp.Body), name, opts, dir, &meta)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return file, meta, err
}

// steady reports whether a modification time is a strong validator (RFC 9110, 8.8.2.2).
func steady(modified time.Time, date string) bool {
	now, err := http.ParseTime(date)
	return err == nil && now.Sub(modified) >= time.Minute
}

// fetchSpooled copies a local file instead of downloading it.
func fetchSpooled(file, rawURL string, opts Options, dir string) (_ string, _ Meta, err error) {
	name := "context"
	if opts.Filename != "" || !strings.HasSuffix(rawURL, "/") {
		if name, err = fileName(opts.Filename, &url.URL{Path: "/" + path.Base(rawURL)}); err != nil {
			return "", Meta{}, err
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return "", Meta{}, fmt.Errorf("open spooled source: %w", err)
	}
	defer func() { _ = f.Close() }()
	meta := Meta{LastModified: time.Unix(0, 0)}
	out, err := save(f, name, opts, dir, &meta)
	if err != nil {
		return "", Meta{}, fmt.Errorf("copy spooled source: %w", err)
	}
	return out, meta, nil
}

// request sends a request and checks the status of the answer.
func request(ctx context.Context, method string, u *url.URL, opts Options) (*http.Response, error) {
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("unsupported scheme %q", u.Scheme)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for key, values := range opts.Header {
		req.Header[http.CanonicalHeaderKey(key)] = values
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "shale")
	}
	// For other methods the transport requests compression itself and decompresses the
	// answer. A HEAD request must ask for it too, because the ETag may depend on it.
	if method == http.MethodHead {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	switch {
	case opts.ETag != "":
		req.Header.Set("If-None-Match", opts.ETag)
	case !opts.Since.IsZero():
		req.Header.Set("If-Modified-Since", opts.Since.UTC().Format(http.TimeFormat))
	}
	client := &http.Client{Transport: opts.Transport, CheckRedirect: redirects(u, opts.Header)}
	resp, err := client.Do(req) //nolint:bodyclose // closed by the caller or below
	if err != nil {
		return nil, withoutURL(err)
	}
	switch {
	case resp.StatusCode == http.StatusNotModified && (opts.ETag != "" || !opts.Since.IsZero()):
		err = ErrNotModified
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		err = &StatusError{Code: resp.StatusCode}
	}
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	return resp, nil
}

// redirects returns a function that follows at most maxRedirects redirects. Headers for
// the first host are not sent to another host or with another scheme, for example over
// http after https.
func redirects(first *url.URL, secret http.Header) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return fmt.Errorf("more than %d redirects", maxRedirects)
		}
		if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
			return fmt.Errorf("redirect to unsupported scheme %q", req.URL.Scheme)
		}
		if req.URL.Host == first.Host && req.URL.Scheme == first.Scheme {
			return nil
		}
		for key := range secret {
			req.Header.Del(key)
		}
		for _, key := range []string{"Authorization", "Cookie", "Proxy-Authorization", "Referer"} {
			req.Header.Del(key)
		}
		return nil
	}
}

// withoutURL removes the URL from an error, because it may contain credentials.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// save writes r to dir/name and sets the size and the digest in meta.
func save(r io.Reader, name string, opts Options, dir string, meta *Meta) (_ string, err error) {
	algorithm := digest.Canonical
	if opts.Checksum != "" {
		if err := opts.Checksum.Validate(); err != nil {
			return "", fmt.Errorf("checksum %q: %w", opts.Checksum, err)
		}
		algorithm = opts.Checksum.Algorithm()
	}
	f, err := os.CreateTemp(dir, ".fetch-")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	hash := algorithm.Digester()
	meta.Size, err = copyLimited(io.MultiWriter(f, hash.Hash()), r, opts.MaxSize)
	if err != nil {
		return "", err
	}
	meta.Digest = hash.Digest()
	if opts.Checksum != "" && opts.Checksum != meta.Digest {
		return "", &ChecksumError{Got: meta.Digest, Want: opts.Checksum}
	}
	if err := finish(f, opts, meta.LastModified); err != nil {
		return "", err
	}
	file := filepath.Join(dir, name)
	if err := os.Rename(f.Name(), file); err != nil {
		return "", err
	}
	return file, f.Close()
}

func copyLimited(w io.Writer, r io.Reader, limit int64) (int64, error) {
	if limit <= 0 {
		return io.Copy(w, r)
	}
	n, err := io.Copy(w, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		return n, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	return n, err
}

// finish sets the owner, then the mode and then the time. Each step would change the ones
// after it.
func finish(f *os.File, opts Options, mtime time.Time) error {
	if opts.UID != nil || opts.GID != nil {
		if err := f.Chown(idOr(opts.UID), idOr(opts.GID)); err != nil {
			return err
		}
	}
	perm := uint32(0o600)
	if opts.Perm != nil {
		perm = *opts.Perm
	}
	if err := unix.Fchmod(int(f.Fd()), perm); err != nil {
		return &os.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return os.Chtimes(f.Name(), mtime, mtime)
}

func idOr(id *uint32) int {
	if id == nil {
		return -1
	}
	return int(*id)
}

// fileName returns the name of the file: asked, which must be a name and not a path, or
// the last component of the URL's path.
func fileName(asked string, u *url.URL) (string, error) {
	if asked != "" {
		if !isName(asked) {
			return "", fmt.Errorf("file name %q is not a name", asked)
		}
		return asked, nil
	}
	if strings.HasSuffix(u.Path, "/") {
		return unnamed, nil
	}
	// u.Path is decoded, so %2f is a slash here, and the part before it is dropped.
	if name := path.Base(u.Path); isName(name) {
		return name, nil
	}
	return unnamed, nil
}

func isName(s string) bool {
	return s != "." && s != ".." && s != "" && len(s) <= 255 && !strings.ContainsAny(s, "/\x00")
}
