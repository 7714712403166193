mkdir -p context
cd context
printf f > a
mkdir d
ln a d/c
ln a d/e
