// Package diff turns the upper directory of an overlay into an image layer,
// in one pass and without mounting anything.
//
// Its nouns are the upper directory (what one build step changed), the lowers
// (the layers below it, needed to tell what is new and what an opaque directory
// hides) and the layer, an uncompressed tar archive as BuildKit
// writes it:
//
//   - entries in depth-first order, the names of a directory sorted by bytes,
//     no entry for the root;
//   - POSIX (PAX) format with extended records only where a value does not fit
//     the plain header; modification times in whole seconds, no access or
//     change times, no user or group names;
//   - a deleted name is an empty file ".wh.NAME" with mode, owner and time
//     zero, and so is every name that an opaque directory hides;
//   - further names of one file within the layer are hard links to the first;
//   - of the extended attributes, security.capability (in its form without a
//     user namespace's root) and user.*, but for those by which overlayfs and
//     rootless tools keep their own records;
//   - sockets are left out, sparse files are written whole;
//   - a file that is what the layers below show, its time included, is left
//     out; so is a directory with nothing new in it, whatever its time.
//
// Beside the archive's digest and size the pass yields the tar-split records
// with which containers/storage can reproduce the archive from the directory.
//
// The package leaves compressing, storing and mounting to others.
package diff
