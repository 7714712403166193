mkdir http
tree() { # DIR: an archive's content
	mkdir -p $1/dir
	echo a >$1/file
	echo b >$1/dir/deep
	ln -s dir/deep $1/link
	chmod 640 $1/file
	find $1 -exec touch -h -d '2021-05-06 07:08:09 UTC' {} +
}
pack() { tar --sort=name --owner=7 --group=8 --numeric-owner --format=gnu -C $1 -c . ; }
tree t
pack t >http/a.tar
gzip -n <http/a.tar >http/a.tar.gz
echo f >http/f
rm -r t
touch -d '2020-02-03 04:05:06 UTC' http/a.tar.gz
touch -d '2020-02-03 04:05:06 UTC' http/a.tar
touch -d '2020-02-03 04:05:06 UTC' http/f
