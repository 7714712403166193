mkdir -p context
cd context
touch e
