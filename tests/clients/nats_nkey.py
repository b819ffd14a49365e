"""A client of nats-py that signs with the seed in SEED: nats_nkey.py URL"""

import asyncio
import os
import sys

import nats


async def main(url):
    client = await nats.connect(url, nkeys_seed_str=os.environ["SEED"], allow_reconnect=False)
    orders = await client.subscribe("orders.>")
    await client.publish("orders.a", b"signed")
    print((await orders.next_msg(timeout=5)).data.decode())
    await client.close()


asyncio.run(main(sys.argv[1]))
