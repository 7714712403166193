mkdir -p context
cd context
printf f > f
ln f g
ln -s f l
mkfifo p
