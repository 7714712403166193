mkdir -p context
cd context
mkdir ../nc
printf other > ../nc/f
printf f > f
