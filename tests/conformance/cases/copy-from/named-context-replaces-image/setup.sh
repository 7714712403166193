mkdir -p context
cd context
mkdir ../nc
printf other > ../nc/f
chmod 600 ../nc/f
