mkdir -p context
cd context
printf t > t
ln -s t l
ln -s l l2
ln -s self self
