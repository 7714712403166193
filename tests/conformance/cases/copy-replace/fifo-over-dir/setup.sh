mkdir -p context
cd context
mkdir s d
mkfifo s/x
mkdir d/x
printf older > d/x/old
