mkdir -p context
cd context
mkdir -p b
ln -s /t/u b/l
printf f > f
