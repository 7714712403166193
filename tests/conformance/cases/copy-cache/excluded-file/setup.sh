mkdir -p context
cd context
mkdir d
printf a > d/a
printf b > d/b.md
