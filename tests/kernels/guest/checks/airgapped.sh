# Without a default route, which the program that starts this has deleted, a step has
# a network of its own all the same.
. /stage/checks/lib
own=$(readlink /proc/self/ns/net)
build net --network=private --no-cache <<'D'
FROM busybox
RUN echo "namespace $(readlink /proc/self/ns/net)"
D
grep -q "namespace net" log
! grep -qF "namespace $own" log || { cat log; echo "the host's network"; exit 1; }
