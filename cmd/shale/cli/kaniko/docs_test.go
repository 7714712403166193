package kaniko

import (
	goflag "flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

var update = goflag.Bool("update", false, "rewrite the table in docs/kaniko.md")

// TestDocs compares the table in docs/kaniko.md with the flags.
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "..", "..", "..", "docs", "kaniko.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(page), "| Flag | Meaning |")
	text += flagTable()
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(text, string(page)); diff != "" && !*update {
		t.Errorf("docs/kaniko.md is not what the flags say; run go test -run TestDocs -update (-want +got):\n%s", diff)
	}
}

func flagTable() string {
	set, known := newFlagSet(&flags{})
	var text strings.Builder
	text.WriteString("| Flag | Meaning |\n|---|---|\n")
	for _, f := range known {
		value, usage := pflag.UnquoteUsage(set.Lookup(f.name))
		if f.instead != "" {
			usage = "the old name of `--" + f.instead + "`"
		} else if f.noEffect != "" {
			usage += "; no effect: " + f.noEffect
		}
		name := "`--" + f.name + "`"
		if f.short != "" {
			name = "`-" + f.short + "`, " + name
		}
		if f.instead == "" && strings.ToUpper(value) == value && value != "" {
			name += " " + value
		}
		fmt.Fprintf(&text, "| %s | %s |\n", strings.ReplaceAll(name, "|", `\|`), strings.ReplaceAll(usage, "|", `\|`))
	}
	return text.String()
}
