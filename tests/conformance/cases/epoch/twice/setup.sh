mkdir t; echo t >t/t; tar -C t --mtime=2020-01-01 --sort=name --owner=3 --group=4 --numeric-owner -cf context/t.tar t
