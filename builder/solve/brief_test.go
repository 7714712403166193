package solve

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
)

func TestBrief(t *testing.T) {
	deep := strings.Repeat("/d", 20_000)
	err := fmt.Errorf("pack the layer: %w", &fs.PathError{Op: "open", Path: deep, Err: fs.ErrNotExist})
	got := brief(err)
	if text := got.Error(); len(text) > 500 || !strings.HasPrefix(text, "pack the layer: open /d/d") || !strings.HasSuffix(text, "file does not exist") || !errors.Is(got, fs.ErrNotExist) {
		t.Errorf("got %d bytes: %.600s", len(text), text)
	}
	for name, text := range map[string]string{
		"short": "open /a/b: no", "many words": strings.Repeat("word /a\n", 10_000), "no path": strings.Repeat("x", 5000),
	} {
		if err := errors.New(text); !errors.Is(brief(err), err) || brief(err).Error() != text {
			t.Errorf("%s was changed", name)
		}
	}
}
