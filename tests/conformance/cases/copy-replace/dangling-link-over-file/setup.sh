mkdir -p context
cd context
mkdir s d
ln -s gone s/x
printf older > d/x
