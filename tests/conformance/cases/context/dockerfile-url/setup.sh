mkdir c http
echo f >c/f
printf 'FROM scratch\nCOPY f /x\n' >http/df
tar --sort=name --owner=0 --group=0 --mtime=2021-02-03 -C c -cf http/c.tar .
touch -d '2020-02-03 04:05:06 UTC' http/*
