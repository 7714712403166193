mkdir -p context
cd context
mkdir -p d/e
printf f > f
printf g > d/g
