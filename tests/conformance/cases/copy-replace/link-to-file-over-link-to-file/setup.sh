mkdir -p context
cd context
mkdir s d
printf t > s/t
ln -s t s/x
printf l > d/l
ln -s l d/x
