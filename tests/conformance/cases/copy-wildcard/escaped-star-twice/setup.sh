mkdir -p context
cd context
printf 1 > 'a*b'; printf 2 > axb
