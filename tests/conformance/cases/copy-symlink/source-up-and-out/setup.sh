mkdir -p context
cd context
printf f > f
mkdir d
ln -s ../../../../f up
ln -s ../../f d/up2
