mkdir -p context
cd context
mkfifo fifo; chmod 620 fifo; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'; chmod 755 sock
