package frontend

import (
	"context"
	"errors"
	"os"

	"github.com/moby/buildkit/frontend/dockerui"

	"github.com/shale-build/shale/builder/source/http"
)

// downloadDockerfile reads the Dockerfile if -f is a URL. Such a Dockerfile has no ignore
// file of its own.
func (in *Inputs) downloadDockerfile(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp(o.TempDir, "shale-dockerfile-")
	if err != nil {
		return inputErrorf("make directory for the Dockerfile: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file, _, err := http.Fetch(ctx, o.Dockerfile, http.Options{Filename: dockerui.DefaultDockerfileName, MaxSize: MaxFile}, dir)
	if err != nil {
		return inputErrorf("read Dockerfile: %w", err)
	}
	data, err := readNamed(file)
	if err != nil {
		return inputErrorf("read Dockerfile: %w", err)
	}
	in.setFilename(dockerui.DefaultDockerfileName)
	in.files[in.Filename] = data
	return nil
}
