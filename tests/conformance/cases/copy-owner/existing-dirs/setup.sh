mkdir -p context
cd context
mkdir -p d/a/b
printf 1 > d/f
printf 2 > d/a/f
printf 3 > d/a/b/f
