mkdir -p context
cd context
mkdir -p base/tmp/symlink-target
ln -s ./tmp/symlink-target base/symlink
ln -s tmp/symlink-target base/symlink2
ln -s /tmp/symlink-target base/abs
printf f > foo
