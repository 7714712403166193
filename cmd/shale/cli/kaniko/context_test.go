package kaniko

import (
	"archive/tar"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/builder/secrets"
)

func TestContexts(t *testing.T) {
	dir := t.TempDir()
	archive := filepath.Join(dir, "c.tar")
	if err := os.WriteFile(archive, []byte("an archive"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.URL.Path)
	}))
	defer server.Close()
	emulators := []string{"STORAGE_EMULATOR_HOST=" + server.URL, "S3_ENDPOINT=" + server.URL, "S3_FORCE_PATH_STYLE=true", "AWS_ACCESS_KEY_ID=a", "AWS_SECRET_ACCESS_KEY=b"}
	const hash = "0123456789abcdef0123456789abcdef01234567"
	tests := map[string]struct {
		args             []string
		env              []string
		context, content string
		login            []secrets.Source
		subdir           string
	}{
		"directory":           {[]string{"--context", dir}, nil, dir, "", nil, ""},
		"directory, spelled":  {[]string{"--context=dir://" + dir, "--context-sub-path=s"}, nil, dir + "/s", "", nil, ""},
		"default":             {nil, nil, "/workspace", "", nil, ""},
		"archive":             {[]string{"--context=tar://" + archive, "--context-sub-path=./s/"}, nil, "-", "an archive", nil, "s"},
		"standard input":      {[]string{"--context=tar://stdin"}, nil, "-", "stdin", nil, ""},
		"download":            {[]string{"--context=https://h.test/c.tgz"}, nil, "https://h.test/c.tgz", "", nil, ""},
		"bucket of Google's":  {[]string{"--context=gs://b/some/c.tgz"}, emulators, "-", "/storage/v1/b/b/o/some/c.tgz", nil, ""},
		"bucket by its flag":  {[]string{"-b", "b"}, emulators, "-", "/storage/v1/b/b/o/context.tar.gz", nil, ""},
		"bucket with address": {[]string{"-b", "s3://b/k"}, emulators, "-", "/b/k", nil, ""},
		"bucket of Amazon's":  {[]string{"--context=s3://b/some/c.tgz"}, emulators, "-", "/b/some/c.tgz", nil, ""},

		"git":                        {[]string{"--context=git://h.test/r.git"}, nil, "https://h.test/r.git?submodules=false", "", nil, ""},
		"git, branch":                {[]string{"--context=git://h.test/r#refs/heads/x"}, nil, "https://h.test/r.git?ref=refs%2Fheads%2Fx&submodules=false", "", nil, ""},
		"git, commit":                {[]string{"--context=git://h.test/r#refs/heads/x#" + hash}, nil, "https://h.test/r.git?ref=" + hash + "&submodules=false", "", nil, ""},
		"git, flag before reference": {[]string{"--context=git://h.test/r#x", "--git=branch=y"}, nil, "https://h.test/r.git?ref=y&submodules=false", "", nil, ""},
		"git, commit before flag":    {[]string{"--context=git://h.test/r#" + hash, "--git=branch=y"}, nil, "https://h.test/r.git?ref=" + hash + "&submodules=false", "", nil, ""},
		"git, directory":             {[]string{"--context=git://h.test/r", "--context-sub-path=a/b"}, nil, "https://h.test/r.git?subdir=a%2Fb&submodules=false", "", nil, ""},
		"git, submodules":            {[]string{"--context=git://h.test/r", "--git=recurse-submodules=true,single-branch=true,depth=1"}, nil, "https://h.test/r.git?submodules=true", "", nil, ""},
		"git, http":                  {[]string{"--context=git://h.test/r"}, []string{"GIT_PULL_METHOD=http"}, "http://h.test/r.git?submodules=false", "", nil, ""},
		"git, token": {
			[]string{"--context=git://h.test:1/r"},
			[]string{"GIT_TOKEN=t", "GIT_USERNAME=u"},
			"https://h.test:1/r.git?submodules=false", "",
			[]secrets.Source{{ID: "GIT_AUTH_HEADER.h.test:1", Value: "basic dDo="}},
			"",
		},
		"git, password": {
			[]string{"--context=git://h.test/r"},
			[]string{"GIT_PASSWORD=p", "GIT_USERNAME=u"},
			"https://h.test/r.git?submodules=false", "",
			[]secrets.Source{{ID: "GIT_AUTH_HEADER.h.test", Value: "basic dTpw"}},
			"",
		},
		"git, token in the address": {[]string{"--context=git://t@h.test/r"}, nil, "https://t@h.test/r.git?submodules=false", "", nil, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := run(t, append(test.args, "--no-push"), environment(test.env...))
			var content string
			if o.Stdin != nil {
				data, err := io.ReadAll(o.Stdin)
				if err != nil {
					t.Fatal(err)
				}
				content = string(data)
			}
			got := []any{o.Context, content, o.Secrets, o.Subdir}
			if diff := cmp.Diff([]any{test.context, test.content, test.login, test.subdir}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestContextErrors(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no such scheme":     {[]string{"--context=ftp://x"}, `unknown build context "ftp://x"`},
		"no such archive":    {[]string{"--context=tar:///none"}, "open build context"},
		"way out of archive": {[]string{"--context=https://x/y", "--context-sub-path=../x"}, "a path below the context"},
		"git without host":   {[]string{"--context=git:///r"}, "want git://HOST"},
		"too many commits":   {[]string{"--context=git://h/r#a#b#c"}, "want git://HOST"},
		"no context":         {[]string{"--context="}, "please specify"},
		"no key in address":  {[]string{"--context=git://to%zzken@h/r"}, `"git://h/r"`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse(append(test.args, "--no-push"), environment())
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Prepare(t.Context(), strings.NewReader(""))
			if err == nil {
				p.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

func TestDockerfileIsHereFirst(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("Dockerfile", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tar.NewWriter(&archive).Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("c.tar", archive.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	o := run(t, []string{"--no-push", "--context=tar://c.tar"}, environment())
	if want, _ := filepath.Abs("Dockerfile"); o.Dockerfile != want {
		t.Errorf("Dockerfile %q, want %q", o.Dockerfile, want)
	}
	o = run(t, []string{"--no-push", "--context=tar://c.tar", "--dockerfile=other"}, environment())
	if o.Dockerfile != "other" {
		t.Errorf("Dockerfile %q, want that of the context", o.Dockerfile)
	}
}
