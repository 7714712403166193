mkdir -p context
cd context
mkdir -p log/important/not log/x
printf 1 > log/important/a
printf 2 > log/important/not/b
printf 3 > log/x/c
printf 4 > log/d
