package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// TestTable checks that the table of docs/environments.md agrees with the results.
func TestTable(t *testing.T) {
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "environments.md"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := renderTable(document, "results")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(document, want) {
		t.Error("docs/environments.md is not what tests/kernels/results says: run bin/kernels -document docs/environments.md -results tests/kernels/results and commit it")
	}
}

// TestResults checks that differences.json has a reason for every failed case, and that
// the results of each machine are complete and sorted.
func TestResults(t *testing.T) {
	known, err := loadDifferences()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range machines {
		results, err := readResults(filepath.Join("results", m.name+".tsv"))
		if err != nil {
			t.Fatal(err)
		}
		if missing, more := compareCases(t, m, results); len(missing) > 0 || len(more) > 0 {
			t.Errorf("%s.tsv has not %v, and has %v that the selection has not: run make kernels MACHINE=%s", m.name, missing, more, m.name)
		}
		if !slices.IsSortedFunc(results, plan.Compare) {
			t.Errorf("%s.tsv is not sorted", m.name)
		}
		for _, r := range results {
			if !r.Passed && !slices.ContainsFunc(known, func(d difference) bool { return d.has(m.name, r) && d.Why == r.Why }) {
				t.Errorf("%s: %s fails, and differences.json does not say why", m.name, r.Key())
			}
		}
	}
}

// compareCases compares a machine's results with the selection. It returns the cases that
// are missing, and the results for cases that are not in the selection.
func compareCases(t *testing.T, m machine, results []plan.Result) (missing, more []string) {
	t.Helper()
	environments, err := m.environments(false)
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]bool{}
	for _, e := range environments {
		for _, name := range e.Cases() {
			wanted[plan.Result{Environment: e.Name, Case: name}.Key()] = true
		}
	}
	for _, r := range results {
		if !wanted[r.Key()] {
			more = append(more, r.Key())
		}
		delete(wanted, r.Key())
	}
	return slices.Sorted(maps.Keys(wanted)), more
}

// TestInstructions checks that instructions.sh uses each Dockerfile instruction and type
// of mount, and that every environment runs it.
func TestInstructions(t *testing.T) {
	script, err := os.ReadFile(filepath.Join("guest", "checks", "instructions.sh"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range command.Commands {
		if !regexp.MustCompile(`(?mi)^(ONBUILD )?` + name + ` `).Match(script) {
			t.Errorf("no instruction %s", name)
		}
	}
	for _, mount := range []instructions.MountType{
		instructions.MountTypeBind, instructions.MountTypeCache, instructions.MountTypeTmpfs, instructions.MountTypeSecret, instructions.MountTypeSSH,
	} {
		if !strings.Contains(string(script), "--mount=type="+string(mount)) {
			t.Errorf("no mount of type %s", mount)
		}
	}
	all, err := plan.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []plan.Selection{all.Whole, all.Root, all.Container, all.Docker, all.Short} {
		if !slices.Contains(s.Checks, "instructions") {
			t.Errorf("a selection without the check of instructions: %v", s.Checks)
		}
	}
}

// TestSelection checks that the files of all selected cases exist, and that the host has
// the digests with which the environments compare.
func TestSelection(t *testing.T) {
	all, err := plan.Load()
	if err != nil {
		t.Fatal(err)
	}
	tests := filepath.Join("..")
	for _, s := range []plan.Selection{all.Whole, all.Root, all.Container, all.Docker, all.Short} {
		files := map[string][]string{
			filepath.Join("guest", "checks", "*.sh"):                    s.Checks,
			filepath.Join(tests, "conformance", "cases", "*/case.json"): slices.Concat(s.Conformance, s.Digests),
			filepath.Join(tests, "scripts", "*.txtar"):                  s.Scenarios,
			filepath.Join(tests, "environments", "scripts", "*.txtar"):  s.Containers,
		}
		for pattern, names := range files {
			for _, name := range names {
				if _, err := os.Stat(strings.Replace(pattern, "*", name, 1)); err != nil {
					t.Error(err)
				}
			}
		}
	}
	for _, name := range slices.Concat(all.Root.Digests, all.Container.Digests, all.Docker.Digests, all.Short.Digests) {
		if !slices.Contains(all.Whole.Digests, name) {
			t.Errorf("%s: the host has no digests for it", name)
		}
	}
}

func TestJudge(t *testing.T) {
	known := []difference{{Machines: []string{"old"}, Environments: []string{"oneid"}, Cases: []string{"a/b"}, Why: "too old", Says: "^no such"}}
	for _, test := range []struct {
		name, machine string
		result        plan.Result
		fails         bool
	}{
		{"holds", "new", plan.Result{Environment: "oneid", Case: "a/b", Passed: true}, false},
		{"fails", "new", plan.Result{Environment: "oneid", Case: "a/b", Why: "no such"}, true},
		{"fails as known", "old", plan.Result{Environment: "oneid", Case: "a/b", Why: "x\nno such thing"}, false},
		{"fails otherwise", "old", plan.Result{Environment: "oneid", Case: "a/b", Why: "other"}, true},
		{"holds although known", "old", plan.Result{Environment: "oneid", Case: "a/b", Passed: true}, true},
		{"of another environment", "old", plan.Result{Environment: "user", Case: "a/b", Why: "no such"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := judge(known, test.machine, &test.result); (err != nil) != test.fails {
				t.Errorf("judge: %v", err)
			}
		})
	}
}

func TestResultsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "m.tsv")
	results := []plan.Result{
		{Environment: "user", Case: "b", Passed: true, Why: "note", Seconds: 3},
		{Environment: "root", Case: "a", Why: "first\tline\nsecond"},
	}
	if err := writeResults(file, results); err != nil {
		t.Fatal(err)
	}
	got, err := readResults(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []plan.Result{{Environment: "root", Case: "a", Why: "first line"}, {Environment: "user", Case: "b", Passed: true, Why: "note"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestKeep(t *testing.T) {
	o := options{results: t.TempDir()}
	m := machine{name: "m"}
	a, b := plan.Result{Environment: "user", Case: "a", Passed: true}, plan.Result{Environment: "user", Case: "b", Passed: true}
	failed := plan.Result{Environment: "user", Case: "b"}
	for _, step := range []struct {
		whole     bool
		now, want []plan.Result
	}{
		{false, []plan.Result{a}, []plan.Result{a}},
		{false, []plan.Result{b}, []plan.Result{a, b}},
		{false, []plan.Result{failed}, []plan.Result{a, failed}},
		{true, []plan.Result{b}, []plan.Result{b}},
	} {
		if err := o.keep(m, step.now, step.whole); err != nil {
			t.Fatal(err)
		}
		got, err := readResults(filepath.Join(o.results, "m.tsv"))
		if err != nil || !slices.Equal(got, step.want) {
			t.Errorf("got %v, %v, want %v", got, err, step.want)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	dir := t.TempDir()
	dep := "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz kernel/lib/crc16.ko.xz\nkernel/fs/jbd2/jbd2.ko.xz:\nkernel/lib/crc16.ko.xz:\n"
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dep), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := loadOrder(dir, []string{"builtin", "ext4", "jbd2"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"kernel/lib/crc16.ko.xz", "kernel/fs/jbd2/jbd2.ko.xz", "kernel/fs/ext4/ext4.ko.xz"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestArchive(t *testing.T) {
	var out bytes.Buffer
	a := &archive{w: &out}
	a.file("d", 0o755, nil)
	a.file("d/f", 0o644, []byte("hello"))
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	// The header is like that of `cpio -o -H newc`, except for devices and times.
	if want := "070701" + "00000001" + "000041ED"; !strings.HasPrefix(out.String(), want) {
		t.Errorf("got %q, want %s…", out.String()[:40], want)
	}
	if out.Len()%4 != 0 || !strings.Contains(out.String(), "hello\x00\x00\x00070701") {
		t.Errorf("got %q", out.String())
	}
}
