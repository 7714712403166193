mkdir -p http context
echo hello >http/f; echo x >http/g; echo hello >context/f
touch -d '2020-02-03 04:05:06 UTC' http/f
touch -d '2020-02-03 04:05:06 UTC' http/g
