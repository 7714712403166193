mkdir -p context
cd context
printf f > f
printf g > g
