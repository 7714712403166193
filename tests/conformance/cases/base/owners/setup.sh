. "$LIB/oci.sh"

mkdir -p r/d; echo 1 >r/d/f
tar -C r --mtime=2020-01-01 --numeric-owner --owner=1000 --group=50 -cf l d; layer l
echo 2 >r/g; tar -C r --mtime=2020-01-01 --numeric-owner --owner=60000 --group=65000 -cf l g; layer l
layout base
