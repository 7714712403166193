mkdir -p context
cd context
n=$(printf 'n%.0s' $(seq 255)); printf 1 > $n; d=.; for i in 1 2 3 4 5 6; do d=$d/$(printf "$i%.0s" $(seq 150)); done; mkdir -p $d; printf deep > $d/file; ln -s /$(printf 't%.0s' $(seq 300)) link
