mkdir -p context
cd context
mkdir -p b
ln -s ../../../../t b/l
