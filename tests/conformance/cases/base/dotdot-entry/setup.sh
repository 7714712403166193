. "$LIB/oci.sh"

mkdir -p r; echo 1 >r/x; tar -C r --mtime=2020-01-01 --owner=0 --group=0 --numeric-owner -P --transform='s,^,../../,' -cf l x; layer l
layout base
