mkdir -p context
cd context
mkdir -p d/e
printf f > d/f
chmod 700 d
