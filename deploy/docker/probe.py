"""A container's health check: ends with 0 when `/readyz` on the given port of this container answers 200.

Run as `python -IS probe.py 18101`: an interpreter without site packages starts in a fifth of the time, and every
container does this every few seconds.
"""

import socket
import sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2) as connection:
    connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    status = connection.recv(64).split()[1:2]
sys.exit(status != [b"200"])
