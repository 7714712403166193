mkdir -p context
cd context
mkdir base
ln -s /not/there base/new
ln -s also/not base/new2
printf f > foo
