mkdir -p context
cd context
mkdir d
ln -s target d/link
printf n > new
