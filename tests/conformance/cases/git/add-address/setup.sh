# A repository whose hashes are the same each time.
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_AUTHOR_DATE='1000000000 +0000'
export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.com GIT_COMMITTER_DATE='1100000000 +0000'
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
mkdir -p work git
cd work
git -c init.defaultBranch=master init -q sub
(cd sub && echo 123 >file && git add file && git commit -qm initial)
git clone -q --bare sub ../git/sub.git
sub=$(git -C sub rev-parse HEAD)
git -c init.defaultBranch=master init -q repo
cd repo
cp ../../Dockerfile.context Dockerfile
echo base >foo
printf '[submodule "submod"]\n\tpath = submod\n\turl = ../sub.git\n' >.gitmodules
git update-index --add --cacheinfo "160000,$sub,submod"
git add .
git commit -qm initial
git tag v0.0.1
git branch base
echo feature >foo
mkdir sub
echo subfeature >sub/foo
cp Dockerfile sub/
git add .
git commit -qm feature
git branch feature
git checkout -qB master base
echo v0.0.2 >foo
git commit -qam v0.0.2
git tag v0.0.2
git tag -am annotated annotated
echo latest >foo
git commit -qam latest
git tag latest
git clone -q --bare . ../../git/r.git
rm -rf ../../work
