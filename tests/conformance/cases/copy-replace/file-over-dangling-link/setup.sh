mkdir -p context
cd context
mkdir s d
printf new > s/x
ln -s nothing d/x
