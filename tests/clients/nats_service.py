"""A service of nats-py, until the input ends: nats_service.py URL"""

import asyncio
import sys

import nats
from nats.micro import add_service
from nats.micro.service import ServiceError


async def main(url):
    client = await nats.connect(url)
    service = await add_service(client, name="calculator", version="1.2.3", description="doubles")
    group = service.add_group(name="calc")

    async def double(request):
        await request.respond(str(2 * int(request.data)).encode())

    async def fail(request):
        await request.respond_error(code="418", description="no tea")

    await group.add_endpoint(name="double", handler=double)
    await group.add_endpoint(name="fail", handler=fail)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await service.stop()
    await client.drain()


asyncio.run(main(sys.argv[1]))
