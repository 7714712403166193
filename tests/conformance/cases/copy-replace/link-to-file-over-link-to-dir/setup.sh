mkdir -p context
cd context
mkdir s d
printf t > s/t
ln -s t s/x
mkdir d/ld
printf k > d/ld/k
ln -s ld d/x
