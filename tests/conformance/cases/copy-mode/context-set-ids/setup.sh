mkdir -p context
cd context
printf f > suid
chmod 4711 suid
printf g > sgid
chmod 2755 sgid
