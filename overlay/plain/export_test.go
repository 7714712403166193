package plain

import "context"

// IntoWithoutDevices is Into on a file system that does not allow devices.
func (c *Changes) IntoWithoutDevices(ctx context.Context, upper string) error {
	return c.into(ctx, upper, &writer{noDevices: true})
}
