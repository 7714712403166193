package export

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/internal/redact"
	"github.com/shale-build/shale/storage"
)

// missingHistory is the comment of an entry made up for a layer that the
// config says nothing about.
const missingHistory = "buildkit.exporter.image.v0"

// image is what finishing a config reads of it.
type image struct {
	OS           string            `json:"os"`
	Architecture string            `json:"architecture"`
	Created      *time.Time        `json:"created"`
	RootFS       ocispec.RootFS    `json:"rootfs"`
	History      []ocispec.History `json:"history"`
}

// finishConfig completes the config that the front end wrote: the layers it
// could not know, and the times, none of which is later than epoch. Fields it
// knows nothing of stay as they are, as does the history of the base.
func finishConfig(p Platform, diffIDs []digest.Digest, epoch *time.Time) ([]byte, error) {
	var img image
	fields := map[string]json.RawMessage{}
	if err := errors.Join(json.Unmarshal(p.Config, &img), json.Unmarshal(p.Config, &fields)); err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	switch {
	case img.OS == "":
		return nil, errors.New("invalid image config for export: missing os")
	case img.Architecture == "":
		return nil, errors.New("invalid image config for export: missing architecture")
	}
	base, err := readBase(p)
	if err != nil {
		return nil, err
	}
	history := finishHistory(img.History, p.Layers, p.Steps)
	for i := len(base.History); i < len(history); i++ {
		history[i].CreatedBy = redact.URLs(history[i].CreatedBy)
	}
	if epoch != nil {
		clampHistory(history, base.History, *epoch)
	}
	set := map[string]any{
		"history": history,
		"rootfs":  ocispec.RootFS{Type: "layers", DiffIDs: diffIDs},
	}
	switch {
	case img.Created == nil:
		set["created"] = lastTime(history)
	case epoch != nil && img.Created.After(*epoch):
		set["created"] = epoch
	}
	for name, value := range set {
		if fields[name], err = json.Marshal(value); err != nil {
			return nil, fmt.Errorf("write %s of the image config: %w", name, err)
		}
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("write image config: %w", err)
	}
	return out, nil
}

// readBase reads the config of the base, which may be none.
func readBase(p Platform) (base image, err error) {
	if len(p.BaseConfig) == 0 {
		return base, nil
	}
	if err := json.Unmarshal(p.BaseConfig, &base); err != nil {
		return base, fmt.Errorf("read config of the base image: %w", err)
	}
	return base, nil
}

// finishHistory makes the entries that are not empty match the layers one to
// one, as tools that show both expect, and gives every entry a time.
func finishHistory(history []ocispec.History, layers []storage.Layer, steps []string) []ocispec.History {
	out := make([]ocispec.History, 0, len(history))
	next := 0
	for _, h := range history {
		if !h.EmptyLayer && next >= len(layers) {
			// The config of a base names more layers than there are.
			h.EmptyLayer = true
		}
		if !h.EmptyLayer {
			if h.Created == nil {
				h.Created = createdAt(layers[next])
			}
			next++
		}
		out = append(out, h)
	}
	// A base may have layers and no history.
	for ; next < len(layers); next++ {
		by := "layer " + layers[next].DiffID.String()
		if last := len(layers) - 1 - next; last < len(steps) {
			by = steps[last]
		}
		out = append(out, ocispec.History{Created: createdAt(layers[next]), CreatedBy: by, Comment: missingHistory})
	}
	fillTimes(out)
	return out
}

func createdAt(l storage.Layer) *time.Time {
	at := l.Created.UTC()
	return &at
}

// fillTimes gives entries without a time that of the entry before. The first
// of them take the time of the first layer made by this build, or they would
// seem to be as old as the base.
func fillTimes(history []ocispec.History) {
	var last *time.Time
	missing := false
	for _, h := range history {
		if h.Created == nil {
			missing = true
			continue
		}
		last = h.Created
		if missing {
			break
		}
	}
	missing = false
	for i, h := range history {
		switch {
		case h.Created == nil:
			missing = true
			history[i].Created = last
		case missing:
			last = h.Created
		}
	}
}

// clampHistory lets no entry be later than epoch, but for those of the base.
func clampHistory(history, base []ocispec.History, epoch time.Time) {
	ours := false
	for i, h := range history {
		if !ours && i < len(base) && reflect.DeepEqual(h, base[i]) {
			continue
		}
		ours = true
		if h.Created == nil || h.Created.After(epoch) {
			history[i].Created = &epoch
		}
	}
}

func lastTime(history []ocispec.History) (last *time.Time) {
	for _, h := range history {
		if h.Created != nil {
			last = h.Created
		}
	}
	return last
}
