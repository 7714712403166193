mkdir -p context
cd context
printf 1 > .whx
mkdir .whdir
printf 2 > wh.x
printf 3 > .w
