mkdir -p context
cd context
mkdir base
ln -s /not/there base/new
printf f > foo
