package git

import "sync"

// memo calls a function once for each key; failures are not kept.
type memo[T any] struct {
	mu    sync.Mutex
	cells map[string]*cell[T]
}

type cell[T any] struct {
	mu    sync.Mutex
	value *T
}

func (m *memo[T]) get(key string, make func() (T, error)) (T, error) {
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
