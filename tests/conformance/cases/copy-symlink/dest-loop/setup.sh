mkdir -p context
cd context
mkdir base
ln -s b base/a
ln -s a base/b
printf f > foo
