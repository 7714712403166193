mkdir -p context
cd context
printf f > foo
mkdir d
printf w > d/.wh.foo
