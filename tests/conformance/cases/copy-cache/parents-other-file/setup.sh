mkdir -p context
cd context
mkdir -p a/b
printf 1 > a/b/f
printf 2 > a/b/g
