mkdir -p context
cd context
mkdir s d
printf t > s/t
ln -s t s/x
mkdir d/x
printf older > d/x/old
