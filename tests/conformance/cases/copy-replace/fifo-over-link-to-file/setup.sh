mkdir -p context
cd context
mkdir s d
mkfifo s/x
printf l > d/l
ln -s l d/x
