mkdir -p context
cd context
printf 1 > 'with space'
