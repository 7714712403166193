mkdir -p context
cd context
mkdir -p d/e/g d/k
printf 1 > d/a.md
printf 2 > d/a.txt
printf 3 > d/e/b.md
printf 4 > d/e/b.txt
printf 5 > d/e/g/c.md
printf 6 > d/k/keep
printf 7 > top.md
printf 8 > top.txt
mkdir real
printf r > real/r
ln -s real link
