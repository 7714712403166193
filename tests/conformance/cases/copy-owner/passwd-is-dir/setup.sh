mkdir -p context
cd context
printf f > f
mkdir -p etc/passwd
