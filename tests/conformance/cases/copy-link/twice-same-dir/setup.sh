mkdir -p context
cd context
printf a > a
printf b > b
printf c > c
