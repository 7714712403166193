mkdir -p context
cd context
mkdir s d
mkdir s/x
printf new > s/x/in
mkdir d/ld
printf k > d/ld/k
ln -s ld d/x
