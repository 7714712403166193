// Package scope moves the process into a control group below which the user may create
// others.
//
// The control group of a login session belongs to root. But the user's instance of
// systemd, which PAM starts with the first session, has a control group that is delegated
// to the user. On request it creates transient scope units in that group
// (org.freedesktop.systemd1(5), https://systemd.io/CGROUP_DELEGATION). Enter sends the
// request over systemd's own socket or the user's bus. Package sandbox creates the groups
// of containers in the scope.
package scope
