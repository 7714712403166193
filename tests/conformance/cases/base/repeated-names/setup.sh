. "$LIB/oci.sh"

mkdir r; echo 1 >r/g; chmod 600 r/g; T="tar -C r --mtime=2020-01-01 --numeric-owner --owner=0 --group=0 --format=ustar"
$T -cf l g; echo again >r/g; $T -rf l g; layer l
layout base
