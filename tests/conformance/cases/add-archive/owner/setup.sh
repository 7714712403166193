pack() { tar --sort=name --owner=7 --group=8 --numeric-owner --mtime='2021-05-06 07:08:09 UTC' --format=${F:-gnu} -C $1 -c . ; }
mkdir -p t/dir context
echo a >t/file; chmod 640 t/file
echo b >t/dir/deep; chmod 2750 t/dir
ln -s dir/deep t/link; ln -s /dir t/abs
ln t/file t/hard
cp t/file t/set; chmod 4755 t/set
pack t >context/a.tar
rm -r t
