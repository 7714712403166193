mkdir -p context
cd context
mkdir -p b/t
ln -s /t b/l
printf f > f
