mkdir -p context
cd context
mkdir s d
printf new > s/x
mkdir d/x
printf older > d/x/old
