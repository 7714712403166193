mkdir -p context
cd context
mkdir -p d
printf f > f
printf g > d/g
chmod 640 f
chmod 711 d
chmod 4755 d/g
ln -s f l
mkfifo p
chmod 1777 d
mkdir e
chmod 500 e
