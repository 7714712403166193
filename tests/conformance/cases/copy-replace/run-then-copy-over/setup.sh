mkdir -p context
cd context
mkdir s
printf new > s/f
printf l > s/l
printf p > s/p
