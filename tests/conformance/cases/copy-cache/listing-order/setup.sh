mkdir -p context
cd context
mkdir d
printf 1 > d/a
printf 2 > d/b
