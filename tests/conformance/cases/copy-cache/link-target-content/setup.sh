mkdir -p context
cd context
printf a > f
printf zz > g
ln -s f l
