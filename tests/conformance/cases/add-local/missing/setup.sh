mkdir -p context
cd context
printf g > g
