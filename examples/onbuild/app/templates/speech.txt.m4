m4_define(`twice', `$1 $1')m4_dnl
twice(`hear')
