// Package memo calls functions once for each key.
package memo

import "sync"

// Memo calls a function once for each key; failures are not kept.
type Memo[T any] struct {
	mu    sync.Mutex
	cells map[string]*cell[T]
}

type cell[T any] struct {
	mu    sync.Mutex
	value *T
}

// Get returns what make gave for key, and calls it if it has not yet. Callers with
// the same key wait for each other.
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
