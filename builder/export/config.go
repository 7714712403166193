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

// missingHistory is the comment of a history entry that is added for a layer if the
// config has no entry for it.
const missingHistory = "buildkit.exporter.image.v0"

// image contains the fields of a config that finishConfig reads.
type image struct {
	OS           string            `json:"os"`
	Architecture string            `json:"architecture"`
	Created      *time.Time        `json:"created"`
	RootFS       ocispec.RootFS    `json:"rootfs"`
	History      []ocispec.History `json:"history"`
}

// finishConfig completes the config of the front end. It sets the layers, which the front
// end does not know, and the times. If epoch is not nil, no time is later than it.
// Unknown fields and the history of the base image stay as they are.
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

// readBase returns the config of the base image, or an empty one if there is no base
// image.
func readBase(p Platform) (base image, err error) {
	if len(p.BaseConfig) == 0 {
		return base, nil
	}
	if err := json.Unmarshal(p.BaseConfig, &base); err != nil {
		return base, fmt.Errorf("read config of the base image: %w", err)
	}
	return base, nil
}

// finishHistory returns the history with exactly one non-empty entry for each layer,
// because tools that show both expect that. It sets the time of each entry.
func finishHistory(history []ocispec.History, layers []storage.Layer, steps []string) []ocispec.History {
	out := make([]ocispec.History, 0, len(history))
	next := 0
	for _, h := range history {
		if !h.EmptyLayer && next >= len(layers) {
			// The config of a base image may have more entries than there are layers.
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
	// A base image may have layers without a history.
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

// fillTimes sets the missing times of entries to the time of the entry before. Entries
// before the first layer of this build get the time of that layer: otherwise they would
// seem to be as old as the base image.
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

// clampHistory sets later times to epoch, except in the entries of the base image.
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
