mkdir -p context
cd context
printf f > f
mkdir d
printf g > d/g
tar --owner=0 --group=0 --mtime=2021-01-01 -cf t.tar d
rm -r d
