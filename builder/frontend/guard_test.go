package frontend

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const commented = "# base has the tools\n# check=skip=StageNameCasing\nFROM busybox AS Base\n# check=skip=all\nRUN true\n# check=skip=JSONArgsRecommended\nONBUILD CMD x\nFROM base\n"

// TestTargetsOfComments lists the targets of a Dockerfile on which BuildKit's own list
// panics.
func TestTargetsOfComments(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": commented})
	res, err := build(t, Options{Context: dir, Call: CallTargets}, fakes())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := res.Call.Print(&b, false); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("TARGET    DESCRIPTION\nbase      has the tools\n(default) \n", b.String()); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

// TestListTargets compares listTargets with the front end on Dockerfiles that both
// support.
func TestListTargets(t *testing.T) {
	dockerfile := "# base has the tools\nFROM --platform=linux/amd64 busybox AS base\nFROM base\nFROM \\\n base AS Last\n"
	want, err := build(t, Options{Context: tree(t, map[string]string{"Dockerfile": dockerfile}), Call: CallTargets}, fakes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := listTargets([]byte(dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Metadata, got.Metadata); diff != "" {
		t.Errorf("report (-front end +ours):\n%s", diff)
	}
}

// TestComments builds the same Dockerfile.
func TestComments(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": commented})
	if _, err := build(t, Options{Context: dir, BuildArgs: map[string]string{"x": "y"}}, fakes()); err != nil {
		t.Fatal(err)
	}
}

// TestTriggerWithComment uses a base image on which the front end would panic.
func TestTriggerWithComment(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "FROM commented\n"})
	_, err := build(t, Options{Context: dir}, fakes())
	if err == nil || !strings.Contains(err.Error(), "ONBUILD trigger that begins with a comment") {
		t.Errorf("error %v", err)
	}
}
