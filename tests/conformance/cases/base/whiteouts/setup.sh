. "$LIB/oci.sh"

mkdir -p r1/d/sub r1/e/sub r1/keep r1/g; echo 1 | tee r1/a r1/b r1/d/x r1/d/sub/y r1/e/z r1/e/sub/z r1/keep/k r1/g/old >/dev/null; ln -s d r1/ln
pack l r1 && layer l
mkdir -p r2/d r2/e r2/keep r2/g; : >r2/.wh.a; : >r2/d/.wh.sub; : >r2/d/.wh.notthere; : >r2/e/.wh..wh..opq; echo new >r2/e/new; : >r2/g/.wh..wh..opq; : >r2/.wh.ln
pack l r2 && layer l
mkdir -p r3; : >r3/.wh.e; echo file >r3/a; mkdir r3/ln; echo in >r3/ln/f
pack l r3 && layer l
layout base
