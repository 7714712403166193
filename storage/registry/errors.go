package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.podman.io/image/v5/docker"
	imgref "go.podman.io/image/v5/docker/reference"
)

// explain adds the failed action, the image's name and, if the cause is known, advice to
// err. If err is nil, it returns nil.
func explain(what string, named imgref.Named, err error) error {
	if err == nil {
		return nil
	}
	host := imgref.Domain(named)
	text := err.Error()
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s %s: %w", what, named, err)
	case isUnauthorized(err, text):
		return fmt.Errorf("%s %s: %w: the registry refuses these credentials, or has no such repository: run \"shale login %s\": %w",
			what, named, ErrUnauthorized, host, err)
	case isPlainHTTP(text):
		return fmt.Errorf("%s %s: %s speaks plain HTTP: use --tls-verify=false, or insecure=true in registries.conf: %w", what, named, host, err)
	case strings.Contains(text, "x509: ") || strings.Contains(text, "tls: failed to verify"):
		return fmt.Errorf("%s %s: the certificate of %s is not trusted: put its CA into certs.d, or use --tls-verify=false: %w", what, named, host, err)
	case isNotFound(text):
		return fmt.Errorf("%s %s: %w: %w", what, named, ErrNotFound, err)
	case strings.Contains(text, "no image found in"):
		return fmt.Errorf("%s %s: %w: %w", what, named, ErrPlatform, err)
	}
	return fmt.Errorf("%s %s: %w", what, named, err)
}

func isUnauthorized(err error, text string) bool {
	if _, ok := errors.AsType[docker.ErrUnauthorizedForCredentials](err); ok {
		return true
	}
	return containsAny(text, "unauthorized", "authentication required", "requested access to the resource is denied", "StatusCode: 401", "status code 401", "401 (Unauthorized)")
}

func isNotFound(text string) bool {
	return containsAny(text, "manifest unknown", "name unknown", "repository name not known", "StatusCode: 404", "status code 404", "404 (Not Found)")
}

func containsAny(text string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// isImmutableTag reports whether err means that a registry does not allow a tag to be
// moved. It knows the messages of Google's registry, of Amazon's, and of Harbor.
func isImmutableTag(err error) bool {
	return err != nil && containsAny(err.Error(), "The repository has enabled tag immutability",
		"cannot be overwritten because the tag is immutable", "configured as immutable")
}
