# A build with every instruction and every type of mount, and the configuration that
# comes of it.
. /stage/checks/lib
echo text >context/file
printf secret >token
mkdir packed && echo packed >packed/p && tar -cf context/packed.tar packed
# In place there is nothing to run an image with.
cat >kept <<'D'
ARG VERSION=7
FROM busybox AS parent
MAINTAINER somebody
ONBUILD RUN echo triggered >/triggered
FROM parent AS made
ARG VERSION
ENV V=$VERSION
LABEL key=value
SHELL ["/bin/sh", "-ec"]
ADD packed.tar /added
ADD --chmod=640 file /added/file
COPY --chown=1:1 --link file /linked
COPY <<E /here
version $V
E
RUN <<E
test "$(cat /triggered /here /added/packed/p)" = "triggered
version 7
packed"
test "$(stat -c %a /added/file)" = 640
E
RUN --mount=type=bind,source=file,target=/m --mount=type=bind,from=busybox,target=/b,rw \
    --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --mount=type=secret,id=token,env=TOKEN \
    --mount=type=secret,id=token --mount=type=ssh,required=true \
    test "$(cat /m)" = text && touch /b/x /c/x /t/x && test "$TOKEN$(cat /run/secrets/token)" = secretsecret && test -S "$SSH_AUTH_SOCK"
RUN --network=default --security=sandbox true
VOLUME /data
EXPOSE 80
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
WORKDIR /w
USER daemon
RUN test "$(id -u) $(pwd)" = "1 /w" && ! test -e /run/secrets/token && ! test -e /b && ! test -e /t
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo ran $V"]
D
for i in 1 2; do
	build instructions --secret id=token,src=token --ssh "default=$KEY" <kept
done
test "$(grep -c CACHED log)" -ge 9 || { cat log; exit 1; }
shale inspect --format '{{json .Config}}' instructions >config
cat config
for part in '"User":"daemon"' '"ExposedPorts":{"80/tcp":{}}' '"V=7"' '"Entrypoint":["/bin/sh","-c"]' '"Cmd":["echo ran $V"]' '"Volumes":{"/data":{}}' \
	'"WorkingDir":"/w"' '"Labels":{"key":"value"}' '"StopSignal":"SIGINT"' '"Test":["CMD-SHELL","true"]' '"Interval":5000000000' '"Shell":["/bin/sh","-ec"]'; do
	grep -qF "$part" config || { echo "no $part"; exit 1; }
done
! grep -q OnBuild.*triggered config
[ "$ENVIRONMENT" = docker ] || test "$(shale run instructions)" = "ran 7"
