mkdir -p context
cd context
printf h > h1
ln h1 h2
ln h1 h3
