package storage

import (
	"errors"
	"math"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExplainOwners(t *testing.T) {
	// The kernel maps all ids except the last one, which means "no id".
	const none = math.MaxUint32
	refused := errors.New("lchown /f: " + unix.EINVAL.Error())
	tests := map[string]struct {
		err   error
		found owners
		want  string
	}{
		"user beyond":   {refused, owners{uids: map[uint32]bool{0: true, none: true}}, "user 4294967295"},
		"group beyond":  {refused, owners{uids: map[uint32]bool{0: true}, gids: map[uint32]bool{none: true}}, "group 4294967295"},
		"all are there": {refused, owners{uids: map[uint32]bool{0: true}}, ""},
		"another error": {errors.New("no space left on device"), owners{uids: map[uint32]bool{none: true}}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := explainOwners(test.err, &test.found)
			if test.want == "" {
				if err != test.err { //nolint:errorlint // the very one
					t.Errorf("%v became %v", test.err, err)
				}
				return
			}
			if !errors.Is(err, ErrOwnerBeyond) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "--isolation=recorded") {
				t.Errorf("error %v, want %s and ErrOwnerBeyond", err, test.want)
			}
		})
	}
}
