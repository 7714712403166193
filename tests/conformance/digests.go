package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/diff"
)

// epoch is the SOURCE_DATE_EPOCH of images that are compared by digest.
const epoch = "1700000000"

// Twin runs each case with two builders and compares the results. Both builds use the
// same directory, addresses and random values. Every archive must be equal byte for byte,
// so all digests in it must be equal too.
type Twin struct {
	Runner *Runner // its Builder is not used
	// First and Second are the builders to compare.
	First, Second *Shale
}

// Compare runs a case with both builders and returns the diff, or "" if there is none.
// number must be unique to the case: it selects the address of the case's server.
func (t *Twin) Compare(ctx context.Context, c *Case, number int, tmp string) (string, error) {
	same := &Same{
		Nonce: rand.Text(),
		// Use an address of this case alone, so that another server does not take the
		// port between the two builds.
		Server: fmt.Sprintf("127.77.%d.%d:0", number/250, number%250+1),
	}
	var texts [2]string
	for i, builder := range []*Shale{t.First, t.Second} {
		var err error
		if texts[i], err = describe(ctx, t.Runner, builder, c, same, tmp); err != nil {
			return "", err
		}
	}
	if texts[0] == texts[1] {
		return "", nil
	}
	return string(diff.Diff("first", []byte(texts[0]), "second", []byte(texts[1]))), nil
}

// Sum runs a case and returns a text with the full result, including digests. The text
// has no value that differs in each run, so two machines must give the same text. The
// registry must have the same address on both machines.
func Sum(ctx context.Context, runner *Runner, builder *Shale, c *Case, tmp string) (string, error) {
	return describe(ctx, runner, builder, c, &Same{Nonce: c.Name, Server: "127.77.0.1:5078"}, tmp)
}

// describe runs a case with one builder under SOURCE_DATE_EPOCH.
func describe(ctx context.Context, runner *Runner, builder *Shale, c *Case, same *Same, tmp string) (string, error) {
	whole := *c
	// These explain a difference. If content is random, they are compared instead of the
	// digest.
	whole.Layers, whole.Times, whole.Manifest, whole.Log = true, true, true, c.Log
	summing := &summer{shale: builder, random: len(c.Varies) > 0, dir: tmp}
	one := *runner
	one.Builder, one.Same = summing, same
	outcomes, err := one.Run(ctx, &whole, tmp)
	if err != nil {
		return "", err
	}
	encoded, err := Encode(outcomes)
	if err != nil {
		return "", err
	}
	return string(encoded) + strings.Join(summing.sums, "\n") + "\n", os.RemoveAll(filepath.Join(tmp, "work"))
}

// summer builds images with a fixed time and collects the digests of the exported files.
type summer struct {
	shale *Shale
	// random omits the digests, because the content of the image differs in each run.
	random bool
	// dir is the prefix that is cut from file names.
	dir  string
	sums []string
}

// Build implements Builder.
func (s *summer) Build(ctx context.Context, req Request) (Said, error) {
	chosen := func(list []string) bool {
		return slices.ContainsFunc(list, func(e string) bool { return strings.Contains(e, "SOURCE_DATE_EPOCH") })
	}
	if !chosen(req.Flags) && !chosen(req.Env) {
		req.Env = append(slices.Clone(req.Env), "SOURCE_DATE_EPOCH="+epoch)
	}
	req.Outputs = slices.Clone(req.Outputs)
	for i, output := range req.Outputs {
		if !strings.Contains(output, "rewrite-timestamp") && !strings.Contains(output, "type=local") && !strings.Contains(output, "type=tar") {
			req.Outputs[i] += ",rewrite-timestamp=true"
		}
	}
	said, err := s.shale.Build(ctx, req)
	if err != nil || said.failed || s.random {
		return said, err
	}
	files := map[string]digest.Digest{}
	for _, output := range req.Outputs {
		_, dest, ok := strings.Cut(output, "dest=")
		if !ok {
			continue
		}
		dest, _, _ = strings.Cut(dest, ",")
		if err := sumFiles(dest, files); err != nil {
			return said, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		s.sums = append(s.sums, strings.TrimPrefix(name, s.dir)+" "+files[name].String())
	}
	return said, nil
}

// sumFiles adds the digest of a file to into, or those of all files below a directory.
func sumFiles(dest string, into map[string]digest.Digest) error {
	return filepath.WalkDir(dest, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(file) //nolint:gosec // a directory of our own
		if err != nil {
			return err
		}
		defer f.Close()
		into[file], err = digest.FromReader(f)
		return err
	})
}
