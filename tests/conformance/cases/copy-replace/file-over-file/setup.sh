mkdir -p context
cd context
mkdir s d
printf new > s/x
printf older > d/x
