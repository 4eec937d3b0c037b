# SPDX-License-Identifier: GPL-2.0
# memcached.py ADDRESS: values are set and read again over UDP, some in several datagrams; prints their digest.
import hashlib, random, socket, struct, sys

PORT, KEYS, LARGEST, HEAD = 11211, 200, 4000, struct.Struct("!HHHH")

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.settimeout(5)
server.connect((sys.argv[1], PORT))
number = 0


def ask(request):
    """Sends a request, again if nothing comes, and returns the answer."""
    global number
    while True:
        number += 1
        server.send(HEAD.pack(number, 0, 1, 0) + request)
        parts = {}
        try:
            while True:
                datagram = server.recv(65536)
                of, part, count, _ = HEAD.unpack_from(datagram)
                if of != number:
                    continue
                parts[part] = datagram[HEAD.size :]
                if len(parts) == count:
                    return b"".join(parts[at] for at in range(count))
        except TimeoutError:
            continue


numbers, total = random.Random(1), hashlib.sha256()
values = {f"key{at}": numbers.randbytes(numbers.randrange(LARGEST)) for at in range(KEYS)}
for key, value in values.items():
    # What is set is one datagram.
    value = value[:1300]
    assert ask(b"set %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(value), value)) == b"STORED\r\n"
    answer = ask(b"append %s 0 0 %d\r\n%s\r\n" % (key.encode(), len(value), value))
    assert answer == b"STORED\r\n", answer
for key, value in values.items():
    value = 2 * value[:1300]
    answer = ask(b"get %s\r\n" % key.encode())
    assert answer == b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key.encode(), len(value), value)
    total.update(answer)
print(total.hexdigest())
