mkdir -p context
cd context
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket.sock")'; chmod 600 socket.sock
