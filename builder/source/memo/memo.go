// Package memo caches the results of functions by key.
package memo

import "sync"

// Memo calls a function once for each key and caches the result. Errors are not cached.
// The zero value is ready for use, and it is safe for concurrent use.
type Memo[T any] struct {
	mu    sync.Mutex
	cells map[string]*cell[T]
}

type cell[T any] struct {
	mu    sync.Mutex
	value *T
}

// Get returns the cached value for key. If there is none, it calls make and caches the
// value unless make returns an error. Parallel calls with the same key wait for each
// other.
func (m *Memo[T]) Get(key string, make func() (T, error)) (T, error) {
	m.mu.Lock()
	if m.cells == nil {
		m.cells = map[string]*cell[T]{}
	}
	c := m.cells[key]
	if c == nil {
		c = &cell[T]{}
		m.cells[key] = c
	}
	m.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.value == nil {
		v, err := make()
		if err != nil {
			return v, err
		}
		c.value = &v
	}
	return *c.value, nil
}
