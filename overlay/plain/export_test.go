package plain

import "context"

// IntoWithoutDevices is Into where the file system takes no device.
func (c *Changes) IntoWithoutDevices(ctx context.Context, upper string) error {
	return c.into(ctx, upper, &writer{noDevices: true})
}
