# A build of two stages with mounts, owners, set-id bits and a user; built again, all
# is cached; the image runs.
. /stage/checks/lib
echo text >context/file
echo secret >token
# In place there is no network to go without, and nothing to run an image with.
none='RUN --network=none test "$(ls /sys/class/net)" = lo'
[ "$ENVIRONMENT" != docker ] || none='RUN true'
case $ENVIRONMENT in unshare) none='RUN --network=none ! timeout 20 wget -q -O - http://127.77.0.1:5077/v2/' ;; esac
{ sed "s,^NONE\$,$none," >kept; } <<'D'
FROM busybox AS made
RUN id && mkdir /d && echo x >/d/f && chown 1:50 /d/f && chmod 6755 /d/f && ln /d/f /d/g
RUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=token \
    test "$(cat /run/secrets/token)" = secret && touch /c/x /t/x
NONE
FROM busybox
COPY file /file
COPY --from=made /d /d
COPY --from=made --chown=1:1 /d/f /chowned
RUN --mount=type=bind,from=made,source=/d,target=/m cmp /m/f /d/f
RUN test "$(stat -c '%u:%g %a' /d/f /chowned | tr '\n' ' ')" = "1:50 6755 1:1 6755 " && test -f /d/g
USER daemon
WORKDIR /w
RUN test "$(id -u)" = 1
CMD cat /file
D
build steps --secret id=token,src=token <kept
build steps --secret id=token,src=token <kept
test "$(grep -c CACHED log)" -ge 9 || { cat log; exit 1; }
[ "$ENVIRONMENT" = docker ] || test "$(shale run steps)" = text
