mkdir -p context
cd context
printf h > a
ln a b
ln a c
mkdir d
ln a d/e
