package remotecache

import (
	"maps"
	"time"

	"github.com/shale-build/shale/builder/cache"
)

// DropOlder drops the records of what ran before a time.
func (c *Cache) DropOlder(than time.Time) {
	maps.DeleteFunc(c.records, func(_ cache.Key, r Record) bool { return r.Created.Before(than) })
}
