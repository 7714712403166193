mkdir -p context
mkdir s; truncate -s 300000 s/sparse; printf data | dd of=s/sparse bs=1 seek=200000 conv=notrunc 2>/dev/null
tar --sort=name --owner=0 --group=0 --mtime='2021-05-06 07:08:09 UTC' --format=gnu --sparse -C s -cf context/sparse.tar sparse; rm -r s
