// Package http downloads single files: ADD of a URL and remote contexts.
//
// A download is a request, with a limit on redirects and sizes and without
// handing credentials on to another host, that ends as a file with the mode,
// owner and time the build asks for. A URL may also be spooled, which stands
// for a file that is already here, such as an archive read from standard input.
// What the file is used for, and whether the host may be asked at all, is left
// to the caller and its transport.
package http
