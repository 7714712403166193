mkdir -p context
cd context
printf f > f; mkdir etc; printf '# comment\n\nshort:x:9\n  me:x:5:6::/:\nme:x:15:16::/:\nnum:x:nan:7::/:\n' > etc/passwd
