mkdir -p context
cd context
mkdir -p subdir/sub1/sub2/sub3; for p in . sub1 sub1/sub2 sub1/sub2/sub3; do printf f > subdir/$p/f; done
