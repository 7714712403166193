mkdir -p context
cd context
mkdir d
printf f > f
ln -s f l
ln -s /etc/passwd abs
ln -s ../.. up
ln -s d ld
ln -s gone dang
ln -s l d/self
