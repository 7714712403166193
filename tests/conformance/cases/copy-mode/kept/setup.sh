mkdir -p context
cd context
for m in 000 400 644 755 777 4755 2755 1777 6711; do printf $m > f$m; chmod $m f$m; mkdir d$m; chmod $m d$m; done; chmod 711 .
