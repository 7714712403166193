mkdir -p context
cd context
mkdir s d
mkdir s/x
printf new > s/x/in
ln -s nothing d/x
