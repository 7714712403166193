# What doctor says is what happens: it succeeds where a step runs, and only there.
. /stage/checks/lib
said=0
shale doctor >doctor 2>&1 || said=$?
cat doctor
built=0
build step <<'D' || built=1
FROM busybox
RUN true
D
echo "doctor ended with $said; a step $([ $built = 0 ] && echo ran || echo failed)"
[ $((said != 0)) = $built ]
[ $built = 1 ] || sed -n 's/.*\(building .*(.*)\).*/note: \1/p' log | head -1
[ $built = 0 ] || echo "note: no step runs"
