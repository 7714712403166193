mkdir -p http/sub
echo hello >http/file.txt
echo x >http/sub/index.html
echo y >"http/a b+c"
echo z >http/disposed
echo 'attachment; filename="../evil"' >http/disposed.disposition
touch -d '2020-02-03 04:05:06 UTC' http/file.txt
touch -d '2020-02-03 04:05:06 UTC' http/sub/index.html
touch -d '2020-02-03 04:05:06 UTC' "http/a b+c"
touch -d '2020-02-03 04:05:06 UTC' http/disposed
