mkdir http
echo a >http/a.tar
touch -d '2020-02-03 04:05:06 UTC' http/a.tar
