mkdir -p context
cd context
mkdir d; printf 1 > '-rf'; printf 2 > "it's"; printf 3 > 'quo"te'; printf 4 > 'back\slash'; printf 5 > ' lead'; printf 6 > 'trail '; printf 7 > '#hash'; printf 8 > 'semi;colon'; printf 9 > 'dollar$HOME'; printf 10 > '~'; printf 11 > '...'; printf 12 > 'star*'; touch "$(printf 'new\nline')" "$(printf 'tab\there')" "$(printf 'bell\a')"
