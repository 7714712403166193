package plain_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/shale-build/shale/overlay/plain"
)

// BenchmarkStep measures the overhead of a step that writes one file. The overhead is to
// find this file among 10,000 others in 1,500 directories, and to scan the tree for the
// next step.
func BenchmarkStep(b *testing.B) {
	dir := b.TempDir()
	for i := range 1500 {
		sub := filepath.Join(dir, fmt.Sprintf("top%d/mid%02d/d%d", i%10, i/10%15, i/150))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 7 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%d", j)), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	l, err := plain.Stack([]string{dir})
	if err != nil {
		b.Fatal(err)
	}
	root := b.TempDir()
	tree, err := plain.OpenTree(root, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer tree.Close()
	if err := tree.Become(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		tree.Touch()
		if err := os.WriteFile(filepath.Join(root, fmt.Sprintf("made-%d", n)), nil, 0o600); err != nil {
			b.Fatal(err)
		}
		changes, err := tree.Changes(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		upper := b.TempDir()
		if err := changes.Into(b.Context(), upper); err != nil {
			b.Fatal(err)
		}
		if l, err = l.Over(upper); err != nil {
			b.Fatal(err)
		}
		tree.Adopt(l, upper)
		if err := tree.Become(b.Context(), l); err != nil {
			b.Fatal(err)
		}
	}
}
