mkdir -p context
cd context
mkdir -p ../nc/d; printf f > ../nc/d/f; printf g > ../nc/g; printf h > ../nc/h; printf 'g
' > ../nc/.dockerignore
