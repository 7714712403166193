// Package http downloads single files, for ADD of a URL and for remote contexts.
//
// Redirects and sizes are limited, and credentials are not sent to another host. The
// result of a download is a file with the requested mode, owner and time. A URL may also
// be spooled: it then stands for a local file, for example an archive that was read from
// standard input. The caller decides about the use of the file. The transport that the
// caller provides decides which hosts may be asked.
package http
