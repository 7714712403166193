// Package secrets keeps the secrets of one build. Steps and sources may use their values,
// but the values must not appear in the result, the logs or the cache.
//
// A Source is the origin of a value, as in docker's --secret. A Store reads each value
// once, at first use, and keeps it in memory. A Mask removes values from the output of
// steps. Package exec gives a value to a step, as a file or as an environment variable.
package secrets
