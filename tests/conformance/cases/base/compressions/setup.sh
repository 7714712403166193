. "$LIB/oci.sh"

for n in 1 2 3; do mkdir -p r$n && echo $n >r$n/f$n; echo $n >r$n/last; done
pack a.tar r1 && layer a.tar
pack b.tar r2 && gzip -n b.tar && layer b.tar.gz
pack c.tar r3 && zstd -q --rm c.tar && layer c.tar.zst
layout base
