mkdir -p context
cd context
printf f > f
setfattr -n user.color -v blue f
mkdir d
setfattr -n user.dir -v v d
setfattr -n user.binary -v 0x000102ff f
