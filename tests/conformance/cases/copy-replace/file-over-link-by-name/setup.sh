mkdir -p context
cd context
mkdir d
printf t > d/target
ln -s target d/link
printf n > new
