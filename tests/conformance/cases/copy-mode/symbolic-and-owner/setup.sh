mkdir -p context
cd context
printf f > f
chmod 755 f
