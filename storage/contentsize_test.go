package storage

import (
	"errors"
	"strings"
	"testing"
)

func TestSumFiles(t *testing.T) {
	for _, test := range []struct {
		name, recipe string
		want         int64
		bad          bool
	}{
		{name: "nothing"},
		{name: "headers only", recipe: `{"type":2,"payload":"AAAA","position":0}`},
		{
			name:   "files",
			recipe: `{"type":1,"name":"a","size":5,"position":0}` + "\n" + `{"type":2,"payload":"AAAA","position":1}` + "\n" + `{"type":1,"name":"b","size":7,"position":2}`,
			want:   12,
		},
		{name: "a size below zero", recipe: `{"type":1,"name":"a","size":-5,"position":0}`},
		{name: "damaged", recipe: `{"type":1,`, bad: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := sumFiles(strings.NewReader(test.recipe))
			if test.bad {
				if !errors.Is(err, ErrCorruptLayer) {
					t.Errorf("error is %v, want ErrCorruptLayer", err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("got %d, %v, want %d", got, err, test.want)
			}
		})
	}
}
