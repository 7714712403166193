package bucket

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// serve returns Stores with requests that handler answers, for any host.
func serve(t *testing.T, env []string, handler http.HandlerFunc) Stores {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	transport := server.Client().Transport.(*http.Transport)
	transport.TLSClientConfig.InsecureSkipVerify = true
	dial := func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("tcp", server.Listener.Addr().String())
	}
	transport.DialContext = dial
	return Stores{Client: &http.Client{Transport: transport}, Env: func(name string) (string, bool) {
		for _, e := range env {
			if key, value, _ := strings.Cut(e, "="); key == name {
				return value, true
			}
		}
		return "", false
	}}
}

func read(t *testing.T, s Stores, address string) (string, error) {
	t.Helper()
	body, err := s.Open(t.Context(), address)
	if err != nil {
		return "", err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data), nil
}

// keys are credentials of AWS in the environment.
var keys = []string{"AWS_ACCESS_KEY_ID=AKID", "AWS_SECRET_ACCESS_KEY=secret"}

func TestS3(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"credentials": "[default]\naws_access_key_id = FILE\naws_secret_access_key=s\n\n[other]\n# aws_access_key_id = NO\naws_access_key_id=OTHER\naws_secret_access_key=s\naws_session_token=token\n",
		"web":         "jwt\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := "AWS_SHARED_CREDENTIALS_FILE=" + dir + "/credentials"
	none := []string{"AWS_EC2_METADATA_DISABLED=true", "HOME=" + dir}
	// The answer contains the access key, the region and the requested object.
	handler := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "sts.") {
			if r.FormValue("WebIdentityToken") != "jwt" || r.FormValue("RoleArn") != "arn" {
				w.WriteHeader(http.StatusForbidden)
			}
			fmt.Fprint(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>WEB</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`)
			return
		}
		if r.URL.Path == "/creds" {
			fmt.Fprintf(w, `{"AccessKeyId":"TASK%s","SecretAccessKey":"s","Token":"t"}`, r.Header.Get("Authorization"))
			return
		}
		_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		who, rest, _ := strings.Cut(scope, "/")
		parts := strings.Split(rest, "/")
		region := ""
		if len(parts) > 2 {
			region = parts[1]
		}
		if strings.HasPrefix(r.Host, "far.") && region != "eu-central-1" {
			w.Header().Set("X-Amz-Bucket-Region", "eu-central-1")
			w.Header().Set("Location", "https://elsewhere.test/")
			w.WriteHeader(http.StatusMovedPermanently)
			return
		}
		fmt.Fprintf(w, "%s %s %s%s %s", who, region, r.Host, r.URL.EscapedPath(), r.Header.Get("X-Amz-Security-Token"))
	}
	tests := map[string]struct {
		address string
		env     []string
		want    string
	}{
		"environment":          {"s3://b/some/c.tgz", keys, "AKID us-east-1 b.s3.us-east-1.amazonaws.com/some/c.tgz "},
		"default key":          {"s3://b", keys, "AKID us-east-1 b.s3.us-east-1.amazonaws.com/context.tar.gz "},
		"region":               {"s3://b/k", append(keys, "AWS_REGION=eu-west-1"), "AKID eu-west-1 b.s3.eu-west-1.amazonaws.com/k "},
		"region is another":    {"s3://far/k", keys, "AKID eu-central-1 far.s3.eu-central-1.amazonaws.com/k "},
		"China":                {"s3://b/k", append(keys, "AWS_DEFAULT_REGION=cn-north-1"), "AKID cn-north-1 b.s3.cn-north-1.amazonaws.com.cn/k "},
		"dots":                 {"s3://b.c/k", keys, "AKID us-east-1 s3.us-east-1.amazonaws.com/b.c/k "},
		"blanks":               {"s3://b/a b", keys, "AKID us-east-1 b.s3.us-east-1.amazonaws.com/a%20b "},
		"endpoint":             {"s3://b/k", append(keys, "S3_ENDPOINT=https://m.test:9000"), "AKID us-east-1 b.m.test:9000/k "},
		"endpoint, path style": {"s3://b/k", append(keys, "S3_ENDPOINT=m.test", "S3_FORCE_PATH_STYLE=true"), "AKID us-east-1 m.test/b/k "},
		"file":                 {"s3://b/k", []string{file}, "FILE us-east-1 b.s3.us-east-1.amazonaws.com/k "},
		"profile":              {"s3://b/k", []string{file, "AWS_PROFILE=other"}, "OTHER us-east-1 b.s3.us-east-1.amazonaws.com/k token"},
		"web identity":         {"s3://b/k", []string{"AWS_WEB_IDENTITY_TOKEN_FILE=" + dir + "/web", "AWS_ROLE_ARN=arn"}, "WEB us-east-1 b.s3.us-east-1.amazonaws.com/k t"},
		"task":                 {"s3://b/k", append(none, "AWS_CONTAINER_CREDENTIALS_FULL_URI=https://localhost/creds", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="+dir+"/web"), "TASKjwt us-east-1 b.s3.us-east-1.amazonaws.com/k t"},
		"anonymous":            {"s3://b/k", none, "  b.s3.us-east-1.amazonaws.com/k "},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := read(t, serve(t, test.env, handler), test.address)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

func TestGCS(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Authorization")+r.Host+r.URL.RequestURI())
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("GCE_METADATA_HOST", "127.0.0.1:1") // this port does not answer
	got, err := read(t, serve(t, []string{"STORAGE_EMULATOR_HOST=https://e.test"}, handler), "gs://b/a/b.tgz")
	if err != nil {
		t.Fatal(err)
	}
	if want := "e.test/storage/v1/b/b/o/a%2Fb.tgz?alt=media"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	// With the credentials of a user, a refresh token must be exchanged for an access
	// token.
	file := filepath.Join(t.TempDir(), "login.json")
	if err := os.WriteFile(file, []byte(`{"type":"authorized_user","client_id":"i","client_secret":"s","refresh_token":"r"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	s := serve(t, []string{"GOOGLE_APPLICATION_CREDENTIALS=" + file}, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "oauth2.") {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"access_token":"token","token_type":"Bearer"}`)
			return
		}
		handler(w, r)
	})
	if got, err = read(t, s, "gs://b"); err != nil {
		t.Fatal(err)
	}
	if want := "Bearer tokenstorage.googleapis.com/storage/v1/b/b/o/context.tar.gz?alt=media"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/none")
	s = serve(t, []string{"GOOGLE_APPLICATION_CREDENTIALS=/none"}, handler)
	if _, err := read(t, s, "gs://b/c"); err == nil || !strings.Contains(err.Error(), "find credentials of Google") {
		t.Errorf("error %v, want one about credentials", err)
	}
}

func TestAzure(t *testing.T) {
	key := "AZURE_STORAGE_ACCESS_KEY=" + base64.StdEncoding.EncodeToString([]byte("key"))
	status := http.StatusOK
	s := serve(t, []string{key}, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.WriteHeader(status)
		fmt.Fprint(w, r.Host, r.URL.Path, " ", q.Get("sp"), q.Get("sr"), q.Get("spr"), " ", q.Has("sig"), q.Has("se"))
	})
	const address = "https://acc.blob.core.windows.net/con/a/b.tgz"
	got, err := read(t, s, address)
	if err != nil {
		t.Fatal(err)
	}
	if want := "acc.blob.core.windows.net/con/a/b.tgz rbhttps true true"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for address, want := range map[string]bool{
		address: true, "https://acc.blob.core.chinacloudapi.cn/c/b": true,
		"https://example.com/c/b": false, address + "?sig=x": false, "http" + strings.TrimPrefix(address, "https"): false,
	} {
		if got := s.IsAzure(address); got != want {
			t.Errorf("IsAzure(%s) is %t", address, got)
		}
	}
	if _, err := read(t, s, "https://acc.blob.core.windows.net/con"); err == nil {
		t.Error("an address without a blob is no error")
	}
	status = http.StatusForbidden
	if _, err := read(t, s, address); err == nil || !strings.Contains(err.Error(), "403") || strings.Contains(err.Error(), "sig=") {
		t.Errorf("error %v, want the status and no signature", err)
	}
}

func TestOpenRefusesOtherAddresses(t *testing.T) {
	for _, address := range []string{"ftp://x/y", "s3:///k", "::"} {
		if _, err := read(t, serve(t, nil, nil), address); err == nil {
			t.Errorf("%s is taken", address)
		}
	}
}
