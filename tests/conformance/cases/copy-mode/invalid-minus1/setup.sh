mkdir -p context
cd context
printf f > f
