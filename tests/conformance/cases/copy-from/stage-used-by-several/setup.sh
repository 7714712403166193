mkdir -p context
cd context
mkdir d
printf 1 > d/a
printf 22 > d/b
