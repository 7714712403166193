mkdir -p context
cd context
mkdir -p a/b/c a/x z
printf 1 > a/b/c/f
printf 2 > a/b/g
printf 3 > a/x/f
printf 4 > z/f
printf 5 > top
chmod 700 a
chmod 2755 a/b
ln -s a/b lb
ln -s f a/x/lf
