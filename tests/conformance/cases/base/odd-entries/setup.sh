. "$LIB/oci.sh"

mkdir -p r/a/b/c; echo 1 >r/a/b/c/f; echo 2 >r/g; echo 3 >r/long-$(printf '%0120d' 0); ln r/g r/hard; ln -s g r/soft; mkfifo r/pipe; chmod 4711 r/g; touch -d '2021-01-01 00:00:00.123456789' r/a
T="tar -C r --mtime=2020-01-01 --numeric-owner --owner=12345 --group=0"
$T -cf l a/b/c/f; layer l
$T --format=pax --pax-option=delete=atime,delete=ctime -cf l ./g ./hard soft pipe; layer l
$T --format=gnu -P --transform='s,^g$,/abs,' -cf l g long-$(printf '%0120d' 0); layer l
layout base
