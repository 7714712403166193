mkdir -p context
cd context
printf f > f; mkdir etc; echo 'a.b-c_d:x:5:6::/:' > etc/passwd
