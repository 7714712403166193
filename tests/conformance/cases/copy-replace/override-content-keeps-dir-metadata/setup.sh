mkdir -p context
cd context
mkdir -p a/n b/n
printf 1 > a/n/f
printf 2 > b/n/f
chmod 711 b b/n
