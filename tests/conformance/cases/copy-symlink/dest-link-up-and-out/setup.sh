mkdir -p context
cd context
mkdir -p base/d
ln -s ../../../../../tgt base/d/out
printf f > foo
