package kaniko

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/distribution/reference"

	"github.com/shale-build/shale/internal/umask"
)

// Write writes the files that the flags request. digest is the digest of the image.
// Write must be called after the builds of the plan.
func (c *Command) Write(ctx context.Context, digest string) error {
	names, err := c.names(digest)
	if err != nil {
		return err
	}
	for _, f := range []struct{ flag, path, text string }{
		{"digest-file", c.digestFile, digest},
		{"image-name-with-digest-file", c.nameDigestFile, names},
		{"image-name-tag-with-digest-file", c.tagDigestFile, names},
	} {
		if f.path == "" {
			continue
		}
		if err := writeResult(ctx, f.path, f.text); err != nil {
			return fmt.Errorf("write --%s: %w", f.flag, err)
		}
	}
	return c.writeOutputs(digest)
}

// names returns a line NAME[:TAG]@DIGEST for every destination. It contains the tag if
// --image-name-tag-with-digest-file is given, because kaniko writes the same text to
// both files.
func (c *Command) names(digest string) (string, error) {
	var text strings.Builder
	for _, dest := range c.destinations {
		name, tag, err := kanikoName(dest)
		if err != nil {
			return "", err
		}
		if c.tagDigestFile != "" {
			name += ":" + tag
		}
		fmt.Fprintf(&text, "%s@%s\n", name, digest)
	}
	return text.String(), nil
}

// kanikoName returns the name of an image in the form that kaniko writes.
func kanikoName(name string) (repository, tag string, err error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return "", "", fmt.Errorf("invalid image name %q: %w", name, err)
	}
	repository = named.Name()
	if rest, ok := strings.CutPrefix(repository, dockerHub+"/"); ok {
		repository = dockerHubIndex + "/" + rest
	}
	if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
		tag = tagged.Tag()
	}
	return repository, tag, nil
}

// writeResult writes text to a file. If path is an https URL, it sends the text there.
func writeResult(ctx context.Context, path, text string) error {
	if strings.HasPrefix(path, "https://") {
		return put(ctx, path, text)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), umask.Of(0o666))
}

func put(ctx context.Context, url, text string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, strings.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "text/plain")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	return nil
}

// writeOutputs writes the file "images" in the directory $BUILDER_OUTPUT, for Tekton
// and the builders of Google. It contains the digest of each destination.
func (c *Command) writeOutputs(digest string) (err error) {
	dir, _ := c.env("BUILDER_OUTPUT")
	if dir == "" || c.noPush {
		return nil
	}
	f, err := os.Create(filepath.Join(dir, "images"))
	if err != nil {
		return fmt.Errorf("write to BUILDER_OUTPUT: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, dest := range c.destinations {
		entry := struct {
			Name   string `json:"name"`
			Digest string `json:"digest"`
		}{dest, digest}
		if err := json.NewEncoder(f).Encode(entry); err != nil {
			return fmt.Errorf("write to BUILDER_OUTPUT: %w", err)
		}
	}
	return nil
}

// wantsDigest reports whether a flag requests a file with the digest of the image.
func (c *Command) wantsDigest() bool {
	return c.digestFile+c.nameDigestFile+c.tagDigestFile != ""
}
