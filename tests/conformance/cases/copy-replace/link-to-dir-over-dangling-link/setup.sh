mkdir -p context
cd context
mkdir s d
mkdir s/td
ln -s td s/x
ln -s nothing d/x
