# SIGKILL at ten moments of a build: an image that was there is intact, and the next
# build is right.
. /stage/checks/lib
build keep <<'D'
FROM busybox
RUN echo keep >/keep
D
shale inspect --format '{{.Id}} {{json .RootFS}}' keep >before
cat >kept <<'D'
FROM busybox AS other
RUN head -c 3000000 /dev/zero >/big; sleep 1
FROM busybox
RUN echo 1 >/1
COPY Dockerfile /
RUN rm /bin/vi && sleep 1 && echo 2 >/2
COPY --from=other /big /
RUN test "$(cat /1 /2 | tr '\n' ' ')" = "1 2 " && ! test -e /bin/vi && test "$(wc -c </big)" = 3000000
D
cp kept context/Dockerfile
for i in 1 2 3 4 5 6 7 8 9 10; do
	# The one that container engines start is killed with all that it started.
	build kill --no-cache <kept >/dev/null 2>&1 &
	sleep 0.$((i * 37 % 10))$i
	[ $i -lt 5 ] || sleep $((i - 4))
	pids=$(pgrep -f "shale.* -t kill ") || true
	[ -z "$pids" ] || kill -9 $pids || true
	wait || true
done
shale inspect --format '{{.Id}} {{json .RootFS}}' keep >after
cmp before after
build kill <kept
build keep --no-cache <<'D'
FROM keep
RUN test "$(cat /keep)" = keep
D
