mkdir -p context
cd context
mkdir d
ln -s one d/l
