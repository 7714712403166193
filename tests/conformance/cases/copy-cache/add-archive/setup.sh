mkdir -p context
cd context
printf a > f
touch -d 2001-01-01 f
tar --sort=name --owner=0 --group=0 -cf t.tar f
rm f
