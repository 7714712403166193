mkdir -p context
cd context
printf f > f
mkdir e
printf g > e/g
