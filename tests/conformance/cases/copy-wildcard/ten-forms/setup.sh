mkdir -p context
cd context
printf a > foo.go
printf b > bar.go
mkdir -p sub/dir1/dir2
printf c > sub/dir0
printf d > sub/dir1/dir2/foo
printf 2 > foo2
