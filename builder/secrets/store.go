package secrets

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

// MaxSize is the length of the longest secret, docker's.
const MaxSize = 500 * 1024

// ErrNotFound is wrapped by Get for a secret that the build was not given.
var ErrNotFound = errors.New("not found")

// LookupEnv is os.LookupEnv.
type LookupEnv func(name string) (string, bool)

// Store gives out secrets by ID. The zero value has none. It is safe for
// concurrent use.
type Store struct {
	values map[string]func() ([]byte, error)
}

// New makes a Store of sources, of which the last one with an ID holds. A file
// that is missing or too long is an error now, before anything is built.
func New(sources []Source, env LookupEnv) (*Store, error) {
	st := &Store{values: map[string]func() ([]byte, error){}}
	for _, s := range sources {
		if s.Value != "" {
			st.values[s.ID] = func() ([]byte, error) { return []byte(s.Value), nil }
			continue
		}
		if s.Env == "" && s.File == "" {
			if _, ok := env(s.ID); ok {
				s.Env = s.ID
			} else {
				s.File = s.ID
			}
		}
		if s.Env == "" {
			if err := check(s); err != nil {
				return nil, err
			}
		}
		st.values[s.ID] = sync.OnceValues(func() ([]byte, error) { return read(s, env) })
	}
	return st, nil
}

func check(s Source) error {
	info, err := os.Stat(s.File)
	if err != nil {
		return fmt.Errorf("secret %s: %w", s.ID, err)
	}
	if info.IsDir() {
		return fmt.Errorf("secret %s: %s is a directory", s.ID, s.File)
	}
	if info.Size() > MaxSize {
		return tooBig(s.ID)
	}
	return nil
}

func tooBig(id string) error {
	return fmt.Errorf("secret %s too big. max size %dKB", id, MaxSize/1024)
}

func read(s Source, env LookupEnv) ([]byte, error) {
	var data []byte
	if s.Env != "" {
		value, _ := env(s.Env) // unset is empty, as with docker
		data = []byte(value)
	} else {
		f, err := os.Open(s.File)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.ID, err)
		}
		defer f.Close()
		// It may have grown since, or be a pipe, which has no size.
		if data, err = io.ReadAll(io.LimitReader(f, MaxSize+1)); err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.ID, err)
		}
	}
	if len(data) > MaxSize {
		return nil, tooBig(s.ID)
	}
	return data, nil
}

// Get returns the value of the secret called id. The caller must not change it.
func (st *Store) Get(id string) ([]byte, error) {
	if st == nil || st.values[id] == nil {
		return nil, fmt.Errorf("secret %s: %w", id, ErrNotFound)
	}
	return st.values[id]()
}

// Load reads all secrets, whose files may be out of reach later.
func (st *Store) Load() error {
	for _, id := range st.IDs() {
		if _, err := st.Get(id); err != nil {
			return err
		}
	}
	return nil
}

// IDs lists the secrets there are, sorted.
func (st *Store) IDs() []string {
	if st == nil {
		return nil
	}
	ids := make([]string, 0, len(st.values))
	for id := range st.values {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
