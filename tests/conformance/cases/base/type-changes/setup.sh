. "$LIB/oci.sh"

mkdir -p r1/dir r1/todir r1/dir2; echo 1 | tee r1/file r1/dir/x r1/todir/x r1/dir2/y >/dev/null; ln -s dir r1/link; ln -s dir2 r1/link2
pack l r1 && layer l
mkdir -p r2/file r2/link; echo 2 >r2/file/x; echo 2 >r2/link/y; ln -s dir2 r2/dir; echo now >r2/link2
pack l r2 && layer l
layout base
