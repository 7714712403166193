mkdir -p context other/d
echo own >context/own
echo f >other/f; echo g >other/f2; echo s >other/s; echo x >other/d/x
echo f2 >other/.dockerignore
chmod 700 other/d
find context other -exec touch -h -d '2021-02-03 04:05:06 UTC' {} +
