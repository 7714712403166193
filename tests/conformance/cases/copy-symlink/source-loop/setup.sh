mkdir -p context
cd context
ln -s b a
ln -s a b
