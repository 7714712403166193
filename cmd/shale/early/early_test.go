package early

import (
	"strings"
	"testing"
)

func TestWanted(t *testing.T) {
	tests := []struct {
		line string
		want bool
	}{
		{"shale build .", true},
		{"shale build -t a --build-arg x=y .", true},
		{"shale -D --root /a --runroot=/b --log-level info build .", true},
		{"shale --root build images", true},
		{"shale --root build", false},
		{"shale --root", false},
		{"shale run --rm a true", true},
		{"shale run a build --call", true},
		{"shale build --check .", false},
		{"shale build . --call=outline", false},
		{"shale build --print=targets .", false},
		{"shale build --isolation inplace .", false},
		{"shale --rootless build .", false},
		{"shale --version build", false},
		{"shale --help", false},
		{"shale", false},
		{"shale version", false},
		{"shale login host", false},
		{"shale doctor", false},
		{"shale inspect a", false},
		{"shale builds", false},
		{"storage-untar /", false},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			if got := Wanted(strings.Fields(tt.line)); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
	if Wanted([]string{""}) {
		t.Error("a program without arguments wants to enter")
	}
}
