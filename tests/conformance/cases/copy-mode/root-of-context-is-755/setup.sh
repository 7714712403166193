mkdir -p context
cd context
printf f > f
chmod 700 .
