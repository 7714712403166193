package network

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// copyRoutes replaces the default route in the network namespace at path. It adds routes
// to the networks that the machine itself can reach. Then a connection to any other
// network fails at once; through pasta versions before 2024 it would only time out. It is
// for IPv4 only, as is ownInterface.
func copyRoutes(path string) error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	done := make(chan error, 1)
	onOwnThread(func() { done <- replaceDefault(path, routes) })
	if err := <-done; err != nil {
		return fmt.Errorf("copy routes into the network namespace: %w", err)
	}
	return nil
}

// replaceDefault moves the calling thread into the network namespace and replaces the
// route there. The thread must be one of onOwnThread.
func replaceDefault(path string, routes []netlink.Route) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = unix.Setns(fd, unix.CLONE_NEWNET)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return err
	}
	own, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, through := range own {
		if through.Gw == nil {
			continue
		}
		for _, r := range routes {
			if r.Dst == nil || r.Dst.IP.IsLoopback() {
				continue
			}
			// Replace: there may be several routes to a network, but one is enough.
			err := netlink.RouteReplace(&netlink.Route{LinkIndex: through.LinkIndex, Dst: r.Dst, Gw: through.Gw})
			if err != nil {
				return fmt.Errorf("%s: %w", r.Dst, err)
			}
		}
		return netlink.RouteDel(&through)
	}
	return nil
}
