mkdir -p context
cd context
mkdir d
touch d/x
