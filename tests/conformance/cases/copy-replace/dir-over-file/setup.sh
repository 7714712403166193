mkdir -p context
cd context
mkdir s d
mkdir s/x
printf new > s/x/in
printf older > d/x
