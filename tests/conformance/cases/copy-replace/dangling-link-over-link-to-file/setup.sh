mkdir -p context
cd context
mkdir s d
ln -s gone s/x
printf l > d/l
ln -s l d/x
