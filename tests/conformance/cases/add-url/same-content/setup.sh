mkdir -p http/a http/b
echo @NONCE@ >http/a/f
cp http/a/f http/b/f; cp http/a/f http/b/g
touch -d '2020-02-03 04:05:06 UTC' http/a/f
touch -d '2020-02-03 04:05:06 UTC' http/b/f
touch -d '2020-02-03 04:05:06 UTC' http/b/g
