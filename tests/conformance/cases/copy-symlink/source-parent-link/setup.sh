mkdir -p context
cd context
mkdir -p real/dir
printf f > real/dir/foo
printf o > real/other
printf wrong > other
ln -s real/dir link
