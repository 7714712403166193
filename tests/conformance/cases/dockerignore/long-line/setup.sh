mkdir -p context
cd context
mkdir -p d/e bin src/sub node_modules/x
printf 1 > a.md
printf 2 > b.txt
printf 3 > d/a.md
printf 4 > d/e/a.md
printf 5 > d/e/keep
printf 6 > bin/x
printf 7 > src/main.go
printf 8 > src/sub/t.go
printf 9 > node_modules/x/i
printf 10 > .env
