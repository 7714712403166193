// Package greeting words what the service says.
package greeting

import "fmt"

// For greets whoever it is, and the world when nobody is named.
func For(name string) string {
	if name == "" {
		name = "world"
	}
	return fmt.Sprintf("hello, %s", name)
}
