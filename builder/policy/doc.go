// Package policy decides which sources a build may use, and replaces sources by others.
//
// A Policy is a list of rules in BuildKit's format (package sourcepolicy). Each rule
// allows, denies or converts the sources whose identifier and attributes it matches. The
// front end applies the policy to each source that it resolves and to every definition,
// so that no source of the final graph escapes the rules.
package policy
