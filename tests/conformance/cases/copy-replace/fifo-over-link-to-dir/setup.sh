mkdir -p context
cd context
mkdir s d
mkfifo s/x
mkdir d/ld
printf k > d/ld/k
ln -s ld d/x
