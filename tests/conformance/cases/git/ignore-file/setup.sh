# A repository whose hashes are the same each time.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_AUTHOR_DATE='1000000000 +0000'
export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.com GIT_COMMITTER_DATE='1100000000 +0000'
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
mkdir -p work git
cd work
git -c init.defaultBranch=master init -q repo
cd repo
printf 'FROM scratch\nCOPY . /\n' >Dockerfile
echo a >a; echo a >.dockerignore
git add . ; git commit -qm x
git clone -q --bare . ../../git/r.git
rm -rf ../../work
