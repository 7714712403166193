mkdir -p context
cd context
mkdir s d
printf new > s/x
printf l > d/l
ln -s l d/x
