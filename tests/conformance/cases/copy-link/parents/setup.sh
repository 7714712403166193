mkdir -p context
cd context
mkdir -p d/e
printf f > d/e/f
chmod 700 d
