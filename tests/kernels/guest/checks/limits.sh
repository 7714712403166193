# Limits hold in an ordinary login session.
. /stage/checks/lib
build limits --memory 64m --no-cache <<'D'
FROM busybox
RUN echo limit $(cat /sys/fs/cgroup/memory.max)
D
grep -q 'limit 67108864' log || { cat /proc/self/cgroup log; exit 1; }
! grep 'run without' log
