// Package diff packs the upper directory of an overlay as an image layer. It does this in
// one pass and mounts nothing.
//
// The upper directory holds the changes of one build step. The lower directories are the
// layers below it. They are needed to find unchanged files, and the names that an opaque
// directory hides. The layer is an uncompressed tar archive in the form that BuildKit
// writes:
//
//   - The entries are in depth-first order. The names of a directory are sorted by bytes.
//     There is no entry for the root.
//   - The format is POSIX (PAX). Extended records are used only if a value does not fit
//     the plain header. Modification times are in whole seconds. There are no access or
//     change times and no user or group names.
//   - A deleted name is an empty file ".wh.NAME" with mode, owner and time zero. So is
//     every name that an opaque directory hides.
//   - Further names of one file within the layer are hard links to the first.
//   - Two kinds of extended attributes are kept. One is security.capability, without the
//     root id of a user namespace. The other is user.*, without the attributes in which
//     overlayfs and rootless tools keep their own records.
//   - Sockets are left out. Sparse files are written in full.
//   - A file that equals the file in the layers below, including its time, is left out. A
//     directory without new entries is left out whatever its time is.
//
// Besides digest and size of the archive, the pass produces tar-split records.
// containers/storage uses them to rebuild the archive from the directory.
//
// Clone and Copy copy directories with the marks of overlayfs. CopyFile and CopyMetadata
// copy single files and the metadata of directories. Compression, storage and mounts
// belong to other packages.
package diff
