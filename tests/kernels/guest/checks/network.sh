# A step has a network of its own from which the world outside can be reached, also
# where the steps are not told which they get.
. /stage/checks/lib
own=$(readlink /proc/self/ns/net)
for option in "" --network=private; do
	rm -f log
	build net $option --no-cache --build-arg "OUTSIDE=$OUTSIDE" <<'D'
FROM busybox
ARG OUTSIDE
RUN echo "namespace $(readlink /proc/self/ns/net)"; echo answer $(timeout 60 wget -q -O - http://$OUTSIDE/)
D
	grep -q 'answer shale-outside' log || { cat log; echo "with '$option': nothing outside is reached"; exit 1; }
	# Root shares the machine's network, as it always did, unless told otherwise.
	[ "$(id -u)" != 0 ] || [ -n "$option" ] || continue
	! grep -qF "namespace $own" log || { cat log; echo "with '$option': the host's network"; exit 1; }
done
# What listens on the loopback interface of the machine, as its sshd does, is out of
# reach.
build net --network=private --no-cache <<'D'
FROM busybox
RUN echo "answer $(nc -w 5 127.0.0.1 22 </dev/null)"
D
! grep -q 'answer SSH' log || { cat log; echo "the machine's loopback interface is reached"; exit 1; }
