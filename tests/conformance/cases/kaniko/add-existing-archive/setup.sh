mkdir -p t/sub t/link; echo new >t/f; echo s >t/sub/s; echo l >t/link/l; tar -C t --mtime=2020-01-01 --sort=name --owner=0 --group=0 -cf context/a.tar f sub link
