mkdir -p context
cd context
mkdir -p b/n/m
printf 2 > b/n/f
chmod 711 b b/n
chmod 2770 b/n/m
