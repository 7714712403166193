mkdir -p context
cd context
mkdir d; i=0; while [ $i -lt 3000 ]; do echo > d/f$i; i=$((i+1)); done
