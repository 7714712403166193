package frontend

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/frontend/gateway/client"
)

// usualPatience is how long the front end may run without a call to the gateway. On its
// own it only converts, which takes milliseconds, and asks ssh servers of git
// repositories for their host keys. It has no time limit for these servers.
const usualPatience = 30 * time.Second

// activity records the time since the front end last called the gateway.
type activity struct {
	mu     sync.Mutex
	active int
	since  time.Time
}

// begin marks the start of a call, and end marks its end.
func (a *activity) begin() (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.active++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.active--
		a.since = time.Now()
	}
}

func (a *activity) idle() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.active > 0 {
		return 0
	}
	return time.Since(a.since)
}

// runFrontend runs the front end. It returns without waiting for the front end if that is
// blocked on an ssh server, because the front end does not watch ctx then.
func runFrontend(ctx context.Context, g *gateway, limit time.Duration) (*client.Result, error) {
	type answer struct {
		res *client.Result
		err error
	}
	if limit == 0 {
		limit = usualPatience
	}
	answers := make(chan answer, 1)
	g.activity.begin()()
	go func() {
		res, err := guarded(ctx, g)
		answers <- answer{res, err}
	}()
	abandon := func(err error) (*client.Result, error) {
		g.abandoned = true
		go func() {
			<-answers
			_ = g.roots.close()
		}()
		return nil, err
	}
	ticker := time.NewTicker(limit / 10)
	defer ticker.Stop()
	for {
		select {
		case a := <-answers:
			return a.res, a.err
		case <-ctx.Done():
			// Calls of the front end are cancelled. Wait for it to return their error.
			select {
			case a := <-answers:
				return a.res, a.err
			case <-time.After(time.Second):
				return abandon(context.Cause(ctx))
			}
		case <-ticker.C:
			// If no address is known, the front end is busy and not blocked.
			hosts := g.sshHosts()
			if len(hosts) > 0 && g.activity.idle() > limit {
				return abandon(fmt.Errorf("the ssh server of a git repository does not send its host key within %s: %s", limit, strings.Join(hosts, ", ")))
			}
		}
	}
}

var sshAddress = regexp.MustCompile(`(?:ssh://(?:[^@\s/]*@)?([^\s/]+)|\b[\w-]+@([\w.-]+):)`)

// sshHosts returns the hosts on which the front end may be blocked.
func (g *gateway) sshHosts() []string {
	texts := append(slices.Collect(maps.Values(g.in.opts)), string(g.args.file()))
	for _, data := range g.in.files {
		texts = append(texts, string(data))
	}
	var hosts []string
	for _, text := range texts {
		for _, m := range sshAddress.FindAllStringSubmatch(text, -1) {
			hosts = append(hosts, m[1]+m[2])
		}
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}
