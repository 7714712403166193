mkdir -p context
cd context
mkfifo fifo
