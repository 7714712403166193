package remotecache

import (
	"maps"
	"time"

	"github.com/shale-build/shale/builder/cache"
)

// DropOlder removes the records of operations that ran before a time. Layers stay, see
// Bound.
func (c *Cache) DropOlder(than time.Time) {
	maps.DeleteFunc(c.records, func(_ cache.Key, r Record) bool { return r.Created.Before(than) })
}
