mkdir -p context
cd context
mkdir d
printf g > d/g
