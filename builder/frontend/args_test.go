package frontend

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnusedArgs(t *testing.T) {
	const dockerfile = `ARG GLOBAL=1
FROM argtrigger AS one
ARG ONE two=2
ONBUILD ARG TRIGGER
FROM scratch
ENV NOT_ARG=x
`
	given := map[string]string{}
	for _, name := range []string{
		"GLOBAL", "ONE", "two", "TRIGGER", "FROM_IMAGE", "http_proxy", "NO_PROXY", "TARGETARCH", "BUILDPLATFORM",
		"SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE", "TWO", "GLOBBAL", "nothing_like_it", "NOT_ARG",
	} {
		given[name] = "1"
	}
	want := []UnusedArg{{"GLOBBAL", "GLOBAL"}, {"NOT_ARG", ""}, {"TWO", "two"}, {"nothing_like_it", ""}}
	dir := tree(t, map[string]string{"Dockerfile": dockerfile})
	res, err := build(t, Options{Context: dir, BuildArgs: given, Target: "one"}, fakes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, res.UnusedArgs); diff != "" {
		t.Errorf("unused (-want +got):\n%s", diff)
	}
}

func TestFrontendNotice(t *testing.T) {
	for name, tc := range map[string]struct{ dockerfile, want string }{
		"labs":   {"# syntax=docker/dockerfile:1.7-labs\nFROM scratch\n", "[internal] front end docker/dockerfile:1.7-labs is built in"},
		"digest": {"#syntax = docker.io/docker/dockerfile-upstream:master@sha256:0000000000000000000000000000000000000000000000000000000000000000 --flag\nFROM scratch\n", "[internal] front end docker.io/docker/dockerfile-upstream:master@sha256:0000000000000000000000000000000000000000000000000000000000000000 is built in"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSink()
			svc := fakes()
			svc.Progress = s
			if _, err := build(t, Options{Context: tree(t, map[string]string{"Dockerfile": tc.dockerfile})}, svc); err != nil {
				t.Fatal(err)
			}
			if s.names[tc.want] != 1 {
				t.Errorf("seen: %v", s.names)
			}
		})
	}
}

// TestRego checks the warning about a policy of docker buildx beside the Dockerfile.
func TestRego(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM scratch\n", "Dockerfile.rego": "package docker\n"})
	res, err := build(t, Options{Context: dir}, fakes())
	if err != nil || len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0].Short, "Dockerfile.rego has no effect") {
		t.Errorf("warnings %+v, %v", res.Warnings, err)
	}
	res, err = build(t, Options{Context: dir, IgnoreRego: true}, fakes())
	if err != nil || len(res.Warnings) != 0 {
		t.Errorf("warnings %+v, %v", res.Warnings, err)
	}
}
