mkdir -p context
cd context
mkdir -p base/t s
ln -s t base/l
printf f > s/l
