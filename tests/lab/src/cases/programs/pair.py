# SPDX-License-Identifier: GPL-2.0
# pair.py serve | ADDRESS: both ends of a few connections with messages of many sizes, each answered by its digest and itself.
import asyncio, hashlib, random, sys

PORT, CONNECTIONS, MESSAGES, LARGEST = 7801, 6, 40, 60000


async def answer(reader, writer):
    try:
        while True:
            size = int.from_bytes(await reader.readexactly(4), "big")
            body = await reader.readexactly(size)
            writer.write(hashlib.sha256(body).digest() + body)
            await writer.drain()
    except asyncio.IncompleteReadError as end:
        assert not end.partial
    writer.close()


async def ask(address, seed):
    reader, writer = await asyncio.open_connection(address, PORT)
    numbers, total = random.Random(seed), hashlib.sha256()
    for _ in range(MESSAGES):
        body = numbers.randbytes(numbers.randrange(LARGEST))
        writer.write(len(body).to_bytes(4, "big") + body)
        digest = await reader.readexactly(32)
        assert digest == hashlib.sha256(body).digest()
        assert await reader.readexactly(len(body)) == body
        total.update(digest)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    return total.hexdigest()


async def main():
    if sys.argv[1] == "serve":
        server = await asyncio.start_server(answer, "0.0.0.0", PORT)
        await server.serve_forever()
    for digest in await asyncio.gather(*(ask(sys.argv[1], seed) for seed in range(CONNECTIONS))):
        print(digest)


asyncio.run(main())
