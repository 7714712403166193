mkdir -p context
cd context
printf 1 > 'with space'; mkdir 'a b'; printf 2 > 'a b/c d'
