mkdir -p context
cd context
mkdir s d
mkdir s/td
ln -s td s/x
mkdir d/ld
printf k > d/ld/k
ln -s ld d/x
