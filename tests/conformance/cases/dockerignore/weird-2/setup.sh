mkdir -p context
cd context
mkdir -p sub/keep sub/drop
printf 1 > sub/keep/a
printf 2 > sub/drop/b
printf 3 > sub/c
printf 4 > t
