mkdir -p context
cd context
mkdir -p d/e
printf f > d/f
ln -s f d/l
ln d/f d/h
mkfifo d/p
chmod 4711 d/f
