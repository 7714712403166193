mkdir -p context
cd context
mkdir s d
mkfifo s/x
printf older > d/x
