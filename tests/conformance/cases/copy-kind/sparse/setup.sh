mkdir -p context
cd context
truncate -s 3M s
printf end >> s
