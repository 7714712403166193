mkdir -p context
cd context
mkdir base
printf older > base/o
ln -s o base/l
printf f > foo
