// Package greeting makes the text of the service.
package greeting

import "fmt"

// For greets name, or the world if name is empty.
func For(name string) string {
	if name == "" {
		name = "world"
	}
	return fmt.Sprintf("hello, %s", name)
}
