mkdir -p context
cd context
mkdir -p sub/target
printf c > sub/target/foo
ln -s /sub/target sub/abslink
ln -s target sub/rellink
