mkdir -p context
cd context
mkdir d
printf f > d/f
tar --owner=0 --group=0 --mtime=2021-01-01 -cf t.tar d
