mkdir -p context
cd context
printf f > f
ln -s f l1
ln -s l1 l2
ln -s /l2 l3
