mkdir -p context
cd context
ln -s t l
ln l l2 2>/dev/null || ln -P l l2
