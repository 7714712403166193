// Package policy decides which sources a build may use, and what they are
// replaced by.
//
// A Policy is a list of rules in BuildKit's form (package sourcepolicy): each
// allows, denies or converts the sources whose identifier and attributes it
// matches. The front end asks it about what it resolves and hands every
// definition through it, so that no source of the final graph escapes.
package policy
