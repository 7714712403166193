package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// emptyPayload is the SHA-256 of an empty body, which a signed GET must contain.
const emptyPayload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// s3 opens an object. If the server names another region for the bucket, s3 repeats the
// request there.
func (s Stores) s3(ctx context.Context, bucket, key string) (io.ReadCloser, error) {
	login, err := s.awsLogin(ctx)
	if err != nil {
		return nil, fmt.Errorf("find credentials of AWS: %w", err)
	}
	region := s.region()
	body, err := s.s3From(ctx, region, bucket, key, login)
	if status, ok := errors.AsType[*statusError](err); ok {
		if at := status.header.Get("X-Amz-Bucket-Region"); at != "" && at != region {
			return s.s3From(ctx, at, bucket, key, login)
		}
	}
	return body, err
}

func (s Stores) s3From(ctx context.Context, region, bucket, key string, login aws.Credentials) (io.ReadCloser, error) {
	u, err := s.s3URL(region, bucket, key)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if login.AccessKeyID != "" {
		req.Header.Set("X-Amz-Content-Sha256", emptyPayload)
		err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).
			SignHTTP(ctx, login, req, emptyPayload, "s3", region, time.Now())
		if err != nil {
			return nil, fmt.Errorf("sign request: %w", err)
		}
	}
	client := *s.Client
	// A signature is valid for one host only, so a redirect must not be followed. The
	// error names the region of the bucket.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return stream(&client, req)
}

// s3URL returns the address of an object. It reads environment variables that kaniko
// defines.
func (s Stores) s3URL(region, bucket, key string) (*url.URL, error) {
	base := &url.URL{Scheme: "https", Host: "s3." + region + ".amazonaws.com"}
	if strings.HasPrefix(region, "cn-") {
		base.Host += ".cn"
	}
	pathStyle := strings.Contains(bucket, ".") // the certificates do not cover such a host
	if endpoint := s.get("S3_ENDPOINT"); endpoint != "" {
		if !strings.Contains(endpoint, "://") {
			endpoint = "https://" + endpoint
		}
		var err error
		if base, err = url.Parse(endpoint); err != nil {
			return nil, fmt.Errorf("invalid S3_ENDPOINT: %w", err)
		}
		pathStyle = strings.EqualFold(s.get("S3_FORCE_PATH_STYLE"), "true")
	}
	if pathStyle {
		return base.JoinPath(bucket, key), nil
	}
	base.Host = bucket + "." + base.Host
	return base.JoinPath(key), nil
}
