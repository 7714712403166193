mkdir -p http t && printf f >t/f && printf g >http/g && tar --sort=name --mtime=@1600000000 --owner=0 --group=0 --numeric-owner -C t -cf http/a.tar f && rm -r t
