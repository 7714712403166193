package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// azureKey is the environment variable that contains the key of a storage account.
const azureKey = "AZURE_STORAGE_ACCESS_KEY"

// azureHosts are the suffixes of host names in Azure's clouds.
var azureHosts = []string{
	".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.cloudapi.de", ".blob.core.usgovcloudapi.net",
}

// IsAzure reports whether address is a blob at Azure that must be read with the key in
// AZURE_STORAGE_ACCESS_KEY. It reports false if the address is already signed, because
// any HTTP client can read it. It also reports false if there is no key.
func (s Stores) IsAzure(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Query().Has("sig") || s.get(azureKey) == "" {
		return false
	}
	return slices.ContainsFunc(azureHosts, func(end string) bool { return strings.HasSuffix(u.Hostname(), end) })
}

// azure opens a blob. It signs the address for one hour.
func (s Stores) azure(ctx context.Context, u *url.URL) (io.ReadCloser, error) {
	container, name, found := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	if !found || name == "" {
		return nil, errors.New("want https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
	}
	account, _, _ := strings.Cut(u.Hostname(), ".")
	key, err := blob.NewSharedKeyCredential(account, s.get(azureKey))
	if err != nil {
		return nil, fmt.Errorf("invalid %s: it is base64", azureKey)
	}
	signature, err := sas.BlobSignatureValues{
		Protocol: sas.ProtocolHTTPS, ExpiryTime: time.Now().UTC().Add(time.Hour), ContainerName: container, BlobName: name, Permissions: "r",
	}.SignWithSharedKey(key)
	if err != nil {
		return nil, fmt.Errorf("sign request: %w", err)
	}
	signed := *u
	signed.RawQuery = signature.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, signed.String(), nil)
	if err != nil {
		return nil, err
	}
	body, err := stream(s.Client, req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		// The *url.Error contains the signature, which must not be shown.
		return nil, failed.Err
	}
	return body, err
}
