mkdir -p context
cd context
mkdir s d
mkdir s/x
printf new > s/x/in
mkdir d/x
printf older > d/x/old
