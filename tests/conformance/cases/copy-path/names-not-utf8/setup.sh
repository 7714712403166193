mkdir -p context
cd context
printf 1 > "$(printf 'latin-\344')"; mkdir "$(printf 'd\377')"; printf 2 > "$(printf 'd\377/f')"
