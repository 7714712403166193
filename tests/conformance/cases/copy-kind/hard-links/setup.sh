mkdir -p context
cd context
printf f > a
ln a b
mkdir d
ln a d/c
printf g > g
ln g d/g2
