mkdir -p context
cd context
mkdir -p base/t d/in
printf f > d/in/f
ln -s t base/l
