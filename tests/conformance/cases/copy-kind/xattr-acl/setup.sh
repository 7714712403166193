mkdir -p context
cd context
printf f > f
chmod 664 f
setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff f
mkdir d
