mkdir http
echo f >http/f
touch -d '2020-02-03 04:05:06 UTC' http/f
