// Command shale builds OCI images.
package main

func main() {}
