package secrets

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
)

// MaxSize is the maximum length of a secret in bytes. It is docker's limit.
const MaxSize = 500 * 1024

// ErrNotFound is wrapped by the error of Get if the build was not given the secret.
var ErrNotFound = errors.New("not found")

// LookupEnv has the semantics of os.LookupEnv.
type LookupEnv func(name string) (string, bool)

// Store returns secrets by ID. The zero value is empty. A Store is safe for concurrent
// use.
type Store struct {
	values map[string]func() ([]byte, error)
}

// New returns a Store of sources. If several sources have one ID, the last one is used.
// New returns an error if a file is missing or too long, so that the build fails before
// its first step.
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
		value, _ := env(s.Env) // an unset variable is empty, as in docker
		data = []byte(value)
	} else {
		f, err := os.Open(s.File)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.ID, err)
		}
		defer f.Close()
		// The file may have grown since New, or it is a pipe, which has no size.
		if data, err = io.ReadAll(io.LimitReader(f, MaxSize+1)); err != nil {
			return nil, fmt.Errorf("secret %s: %w", s.ID, err)
		}
	}
	if len(data) > MaxSize {
		return nil, tooBig(s.ID)
	}
	return data, nil
}

// Get returns the value of the secret called id. The caller must not modify it.
func (st *Store) Get(id string) ([]byte, error) {
	if st == nil || st.values[id] == nil {
		return nil, fmt.Errorf("secret %s: %w", id, ErrNotFound)
	}
	return st.values[id]()
}

// Load reads all secrets now, because their files may be inaccessible later.
func (st *Store) Load() error {
	for _, id := range st.IDs() {
		if _, err := st.Get(id); err != nil {
			return err
		}
	}
	return nil
}

// IDs returns the IDs of all secrets, sorted.
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
