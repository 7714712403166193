mkdir -p context
cd context
printf f > f; mkdir etc; echo 'me:x:5:6::/:' > etc/passwd; echo 'us:x:7:' > etc/group
