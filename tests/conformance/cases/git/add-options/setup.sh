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
mkdir -p dir/deep empty
echo a >dir/deep/file
echo b >run && chmod 700 run
echo c >private && chmod 600 private
ln -s dir/deep link
ln -s nowhere dangling
: >empty/.keep
printf '[submodule "m"]\n\tpath = dir/m\n\turl = ../sub.git\n' >.gitmodules
git update-index --add --cacheinfo "160000,$sub,dir/m"
git add .
git commit -qm initial
git tag -am t v1
git tag light
git clone -q --bare . ../../git/r.git
rm -rf ../../work
