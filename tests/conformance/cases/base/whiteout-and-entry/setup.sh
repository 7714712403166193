. "$LIB/oci.sh"

mkdir -p r1/d/old; echo 1 >r1/a; echo 1 >r1/d/x
pack l r1 && layer l
mkdir -p r2/d; : >r2/.wh.a; echo 2 >r2/a; : >r2/.wh.d; echo 2 >r2/d/new
pack l r2 && layer l
layout base
