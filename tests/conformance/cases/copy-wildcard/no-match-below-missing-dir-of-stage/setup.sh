mkdir -p context
cd context
mkdir -p sub/dir1/deep sub/dir2 sub/empty other
printf foo > foo.txt; printf bar > bar.txt; printf dot > .hidden
printf 1 > sub/a.md; printf 2 > sub/b.txt; chmod 600 sub/b.txt
printf f1 > sub/dir1/foo; printf f2 > sub/dir2/foo; printf x > sub/dir1/deep/x
printf o > other/o.txt
chmod 750 sub/dir1; chmod 1777 sub/empty; chmod 2755 sub/dir2
ln -s foo.txt tofoo; ln -s sub todir; ln -s nowhere dangling
