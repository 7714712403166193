mkdir c1 lower link none badignore
printf 'FROM scratch\nCOPY . /\n' >c1/Dockerfile
cp c1/Dockerfile c1/Other; cp c1/Dockerfile lower/dockerfile; cp c1/Dockerfile badignore/Dockerfile
for d in c1 lower link; do echo a >$d/a; echo b >$d/b; echo c >$d/c; done
echo a >c1/.dockerignore; echo b >c1/Other.dockerignore; echo c >Dockerfile.dockerignore
ln -s real link/Dockerfile; cp c1/Dockerfile link/real
printf '!\n' >badignore/.dockerignore
echo x >file
find . -exec touch -h -d '2021-02-03 04:05:06 UTC' {} +
