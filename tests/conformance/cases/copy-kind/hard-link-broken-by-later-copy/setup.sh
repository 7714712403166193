mkdir -p context
cd context
printf f > a
ln a b
printf n > n
