. "$LIB/oci.sh"

mkdir -p r context/ctx t; for m in 4755 2755 6711 1777 0000 4000; do echo $m >r/$m; chmod $m r/$m; echo $m >context/ctx/$m; chmod $m context/ctx/$m; echo $m >t/$m; chmod $m t/$m; done; chmod 0400 context/ctx/0000 context/ctx/4000 r/0000 r/4000 t/0000 t/4000; chmod u+s r/4000 context/ctx/4000 t/4000; mkdir r/a; chmod 3775 r/a; mkdir -m 2700 context/ctx/dir
pack l r && layer l
pack context/t.tar t
layout base
