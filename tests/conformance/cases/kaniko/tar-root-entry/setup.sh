mkdir t; echo x >t/x; chmod 700 t; tar -C t --mtime=2020-01-01 --sort=name --owner=7 --group=8 --numeric-owner -cf context/a.tar .
