mkdir http t
pack() { tar --sort=name --owner=0 --group=0 --mtime='2021-05-06' -C t -cf http/$1.tar . ; rm -r t; mkdir t; touch -d '2020-02-03 04:05:06 UTC' http/$1.tar; }
printf 'FROM scratch\nCOPY real /\n' >t/real; ln -s real t/Dockerfile; pack inside
printf 'FROM scratch\nCOPY real /\n' >t/real; ln -s /real t/Dockerfile; pack absolute
ln -s /etc/hostname t/Dockerfile; pack outside
ln -s ../../../../../../../etc/hostname t/Dockerfile; pack up
printf 'FROM scratch\nCOPY ../../x /x\nCOPY abs /y\nCOPY e /e/\n' >t/Dockerfile; echo x >t/x; ln -s /x t/abs; ln -s /etc t/e; pack copy
rm -r t
