mkdir -p context
cd context
printf f > f
mkdir d
printf g > d/g
