mkdir -p context
cd context
mkdir d
printf f > d/f
ln -s /d/f abs
ln -s /d absd
