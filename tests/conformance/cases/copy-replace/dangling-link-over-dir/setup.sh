mkdir -p context
cd context
mkdir s d
ln -s gone s/x
mkdir d/x
printf older > d/x/old
