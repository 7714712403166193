mkdir -p context
cd context
printf f > foo
mkdir d
printf y > d/y
