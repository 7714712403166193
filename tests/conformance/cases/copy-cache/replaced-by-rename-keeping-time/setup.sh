mkdir -p context
cd context
printf aaaa > f
touch -d 2001-01-01 f
