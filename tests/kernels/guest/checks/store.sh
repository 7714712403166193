# A build whose steps delete and replace files and directories, with hard links,
# set-id files and many files, in a store in the directory $1; then again. Where the
# store cannot be used at all the build must say so before its first step.
. /stage/checks/lib
mkdir context/many
for i in $(seq 300); do echo "$i" >context/many/$i; done
cat >kept <<'D'
FROM busybox AS first
RUN mkdir -p /x/y /z && echo 1 >/x/y/f && ln /x/y/f /x/l && echo 2 >/z/f && chmod 4755 /z/f && ln -s f /z/s
RUN rm -r /x; mkdir /x && echo 3 >/x/new && mv /z /moved && rm /bin/vi
RUN test "$(ls -A /x)" = new && test ! -e /z && test ! -e /bin/vi && test "$(stat -c %a /moved/f)" = 4755
COPY many /many
RUN rm -rf /many/1* && mkdir /many/1 && touch /many/1/in && chown 1:1 /many/2
FROM busybox
COPY --from=first /many /many
COPY --from=first /x /x
RUN test "$(ls /many | wc -l)" = 190 && test -e /many/1/in && test "$(stat -c %u /many/2)" = 1 && cat /x/new
D
if ! build store <kept; then
	# With a reason and a way out, and no step that broke off.
	if ! grep -q '\] RUN' log && grep -q -e '--root' log; then
		echo "note: refused: $(tail -1 log)"
		exit 0
	fi
	exit 1
fi
sed -n 's/.*\(building .*(.*)\).*/note: \1/p' log | head -1
build store <kept
test "$(grep -c CACHED log)" -ge 8 || { cat log; exit 1; }
