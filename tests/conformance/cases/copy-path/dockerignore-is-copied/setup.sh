mkdir -p context
cd context
printf x > x
printf y > y
