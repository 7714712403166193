mkdir -p context
cd context
printf f > f
mkdir etc
ln -s ../../../../../../etc/passwd etc/passwd
ln -s /etc/group etc/group
