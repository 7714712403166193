# Limits hold in an ordinary login session.
. /stage/checks/lib
build limits --memory 64m --no-cache <<'D'
FROM busybox
RUN echo limit $(cat /sys/fs/cgroup/memory.max)
D
grep -q 'limit 67108864' log || { cat /proc/self/cgroup log; exit 1; }
! grep 'run without' log
# A step that takes more is killed, and one that computes is slowed down.
build limits --memory 50m --memory-swap 50m --cpu-quota 50000 --no-cache <<'D'
FROM busybox
RUN dd if=/dev/zero of=/dev/null bs=200M count=1; echo "ended with $?"; echo quota $(cat /sys/fs/cgroup/cpu.max)
D
grep -q 'ended with 137' log || { cat log; echo "a step took 200 MB of 50"; exit 1; }
grep -q 'quota 50000 100000' log || { cat log; echo "no quota"; exit 1; }
! grep 'run without' log
