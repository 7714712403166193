setfattr -n user.color -v blue context/f
