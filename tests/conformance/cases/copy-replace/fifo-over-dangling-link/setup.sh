mkdir -p context
cd context
mkdir s d
mkfifo s/x
ln -s nothing d/x
