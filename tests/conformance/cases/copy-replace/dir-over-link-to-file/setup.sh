mkdir -p context
cd context
mkdir s d
mkdir s/x
printf new > s/x/in
printf l > d/l
ln -s l d/x
