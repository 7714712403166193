mkdir -p context
cd context
printf g > g
tar --owner=0 --group=0 --mtime=2021-01-01 -cf t.tar g
ln -s t.tar l.tar
