mkdir -p context
cd context
mkdir -p base/t s/l
ln -s t base/l
printf f > s/l/f
