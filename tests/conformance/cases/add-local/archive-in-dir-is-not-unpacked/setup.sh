mkdir -p context
cd context
mkdir d
printf g > g
tar --owner=0 --group=0 --mtime=2021-01-01 -cf d/t.tar g
