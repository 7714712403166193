mkdir -p context
cd context
mkdir s d
ln -s gone s/x
ln -s nothing d/x
