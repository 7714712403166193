mkdir -p context
cd context
mkdir d
printf f > d/f
