mkdir -p http/sub
echo a >http/index.html
echo b >http/sub/index.html
touch -d '2020-02-03 04:05:06 UTC' http/index.html
touch -d '2020-02-03 04:05:06 UTC' http/sub/index.html
