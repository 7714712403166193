mkdir -p context
cd context
printf aaaa > f
