package kaniko

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Entries of a login file: up is for u:p, and other is for other:p.
const (
	up    = `{"auth":"dTpw"}`
	other = `{"auth":"b3RoZXI6cA=="}`
)

func TestLogins(t *testing.T) {
	dir := t.TempDir()
	programs := filepath.Join(dir, "bin")
	for name, text := range map[string]string{
		"docker/config.json":         `{"auths":{"a.test":` + up + `},"credHelpers":{"h.test":"x"},"credsStore":"ecr-login"}`,
		"file.json":                  `{"auths":{"f.test":` + up + `}}`,
		"kaniko/.docker/config.json": `{"auths":{"k.test":` + up + `}}`,
		"run/containers/auth.json":   `{"auths":{"a.test":` + other + `,"h.test":` + other + `}}`,
		"bin/docker-credential-gcr":  "#!/bin/sh\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", programs)
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	auths := func(pairs ...string) map[string]json.RawMessage {
		m := map[string]json.RawMessage{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = raw(pairs[i+1])
		}
		return m
	}
	docker := "DOCKER_CONFIG=" + dir + "/docker"
	tests := map[string]struct {
		args, env []string
		want      authFile
	}{
		"docker":             {nil, []string{docker}, authFile{auths("a.test", up), map[string]string{"h.test": "x"}, "ecr-login"}},
		"docker, a file":     {nil, []string{"DOCKER_CONFIG=" + dir + "/file.json"}, authFile{auths("f.test", up), nil, ""}},
		"kaniko's directory": {[]string{"--kaniko-dir=" + dir + "/kaniko"}, nil, authFile{auths("k.test", up), nil, ""}},
		"kaniko's directory by environment, what DOCKER_CONFIG names is not there": {
			nil, []string{"KANIKO_DIR=" + dir + "/kaniko", "DOCKER_CONFIG=/kaniko/.docker"}, authFile{auths("k.test", up), nil, ""},
		},
		"auth.json comes before":             {nil, []string{docker, "XDG_RUNTIME_DIR=" + dir + "/run"}, authFile{auths("a.test", other, "h.test", other), nil, "ecr-login"}},
		"REGISTRY_AUTH_FILE is the only one": {nil, []string{docker, "REGISTRY_AUTH_FILE=" + dir + "/file.json"}, authFile{auths("f.test", up), nil, ""}},
		"DOCKER_AUTH_CONFIG comes first": {
			nil,
			[]string{docker, `DOCKER_AUTH_CONFIG={"auths":{"a.test":` + other + `}}`},
			authFile{auths("a.test", other), map[string]string{"h.test": "x"}, "ecr-login"},
		},
		"environment": {
			[]string{"--destination=sub.r-1.test/x"},
			[]string{"KANIKO_R_1_TEST_USER=u", "KANIKO_R_1_TEST_PASSWORD=p"},
			authFile{auths("sub.r-1.test", up), nil, ""},
		},
		"environment, not asked for": {
			[]string{"--destination=r.test/x", "--credential-helpers="},
			[]string{"KANIKO_R_TEST_USER=u", "KANIKO_R_TEST_PASSWORD=p"},
			authFile{},
		},
		"GitLab": {
			nil,
			[]string{"CI_REGISTRY=g.test", "CI_REGISTRY_USER=u", "CI_REGISTRY_PASSWORD=p", "CI_DEPENDENCY_PROXY_SERVER=d.test:443", "CI_DEPENDENCY_PROXY_USER=u", "CI_DEPENDENCY_PROXY_PASSWORD=p"},
			authFile{auths("g.test", up, "d.test:443", up), nil, ""},
		},
		"GitLab, token": {nil, []string{"CI_REGISTRY=g.test", "CI_JOB_TOKEN=t"}, authFile{auths("g.test", `{"auth":"Z2l0bGFiLWNpLXRva2VuOnQ="}`), nil, ""}},
		"a cloud's program, where it is": {
			[]string{"--destination=europe-docker.pkg.dev/p/x", "-d", "1.dkr.ecr.eu-west-1.amazonaws.com/x"},
			nil,
			authFile{nil, map[string]string{"europe-docker.pkg.dev": "gcr"}, ""},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := Parse(append(test.args, "--no-push"), environment(test.env...))
			if err != nil {
				t.Fatal(err)
			}
			regs, err := c.registries()
			if err != nil {
				t.Fatal(err)
			}
			got, err := c.logins(regs.hosts())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoginsInMemory(t *testing.T) {
	path, release, err := authFile{Auths: map[string]json.RawMessage{dockerHubIndex: json.RawMessage(up)}}.inMemory()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"auths":{"docker.io":` + up + `,"index.docker.io":` + up + `}}`; string(data) != want {
		t.Errorf("%s, want %s", data, want)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}
