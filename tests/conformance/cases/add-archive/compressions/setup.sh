pack() { tar --sort=name --owner=7 --group=8 --numeric-owner --mtime='2021-05-06 07:08:09 UTC' --format=${F:-gnu} -C $1 -c . ; }
mkdir -p t/dir context
echo a >t/file; chmod 640 t/file
echo b >t/dir/deep; chmod 2750 t/dir
ln -s dir/deep t/link; ln -s /dir t/abs
ln t/file t/hard
cp t/file t/set; chmod 4755 t/set
pack t >context/a.tar
cd context
gzip -nk a.tar; bzip2 -k a.tar; xz -k a.tar; zstd -q a.tar
cp a.tar.gz picture.png
echo text >text.tar.gz
echo text | gzip -n >file.gz
: >empty.tar
head -c 10240 /dev/zero >none.tar
head -c 120 a.tar.gz >cut.tar.gz
gzip -nc a.tar.gz >twice.tar.gz.gz
ln -s a.tar link.tar
rm -r ../t
find . -exec touch -h -d '2021-02-03 04:05:06 UTC' {} +
