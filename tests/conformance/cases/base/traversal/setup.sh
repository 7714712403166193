. "$LIB/oci.sh"

mkdir -p r/d; ln -s ../../../../../../tmp r/up; ln -s /etc r/etc2; pack l r && layer l
mkdir -p s/up s/etc2; echo 1 >s/up/through; echo 2 >s/etc2/through; tar -C s --mtime=2020-01-01 --owner=0 --group=0 --numeric-owner -cf l up/through etc2/through; layer l
layout base
