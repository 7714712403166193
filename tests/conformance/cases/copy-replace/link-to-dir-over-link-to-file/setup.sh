mkdir -p context
cd context
mkdir s d
mkdir s/td
ln -s td s/x
printf l > d/l
ln -s l d/x
