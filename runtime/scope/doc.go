// Package scope moves the process into a control group that is the user's to
// divide.
//
// A login session's group belongs to root. The user's instance of systemd, which
// PAM starts with the first session, has one that is delegated to the user, and
// makes transient scope units in it on request (org.freedesktop.systemd1(5),
// https://systemd.io/CGROUP_DELEGATION). Enter asks it over its own socket or the
// user's bus. What is done with the group is for package sandbox.
package scope
