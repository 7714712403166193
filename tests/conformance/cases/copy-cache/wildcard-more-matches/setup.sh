mkdir -p context
cd context
printf a > a.txt
printf b > b.md
