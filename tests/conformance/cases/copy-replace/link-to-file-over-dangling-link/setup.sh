mkdir -p context
cd context
mkdir s d
printf t > s/t
ln -s t s/x
ln -s nothing d/x
