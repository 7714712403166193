mkdir c http
: >empty
echo x >file
printf 'FROM scratch\n' >c/Dockerfile
