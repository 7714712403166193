mkdir http
tree() { # DIR: a context
	mkdir -p $1/dir
	echo a >$1/file
	echo b >$1/dir/deep
	ln -s dir/deep $1/link
	printf 'FROM scratch\nCOPY . /c/\n' >$1/Dockerfile
	printf 'FROM scratch\nCOPY file /other\n' >$1/Other
	echo dir >$1/.dockerignore
	find $1 -exec touch -h -d '2021-05-06 07:08:09 UTC' {} +
}
pack() { tar --sort=name --owner=7 --group=8 --numeric-owner --format=gnu -C $1 -c . ; }
tree t
pack t >http/c.tar
gzip -nk http/c.tar; bzip2 -k http/c.tar; xz -k http/c.tar; zstd -q http/c.tar
printf 'FROM scratch\nCOPY . /d/\n' >http/file
rm -r t
touch -d '2020-02-03 04:05:06 UTC' http/*
