mkdir -p context
cd context
printf g > g
chmod 6755 g
tar --owner=5 --group=6 --mtime=2021-01-01 -cf t.tar g
