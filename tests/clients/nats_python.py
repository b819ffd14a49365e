"""The ordinary scenarios of nats-py: nats_python.py URL..."""

import asyncio
import json
import sys

import nats
from nats.errors import NoRespondersError


async def main(urls):
    errors = []

    async def on_error(error):
        errors.append(repr(error))

    one = await nats.connect(urls, error_cb=on_error, name="scenario")
    two = await nats.connect(urls, error_cb=on_error)

    # Publish and subscribe, with headers.
    got = await one.subscribe("greet.*")
    await one.flush()
    await two.publish("greet.joe", b"hello", headers={"Who": "two"})
    message = await got.next_msg(timeout=5)
    assert (message.subject, message.data, message.headers["Who"]) == ("greet.joe", b"hello", "two"), message

    # Request and answer, and nobody there.
    async def echo(request):
        await request.respond(request.data.upper())

    await one.subscribe("echo", cb=echo)
    await one.flush()
    assert (await two.request("echo", b"abc", timeout=5)).data == b"ABC"
    try:
        await two.request("nobody", b"", timeout=5)
        raise AssertionError("an answer of nobody")
    except NoRespondersError:
        pass

    # A queue group.
    counts = {"a": 0, "b": 0}

    def member(name):
        async def take(_):
            counts[name] += 1

        return take

    await one.subscribe("work", queue="q", cb=member("a"))
    await two.subscribe("work", queue="q", cb=member("b"))
    await one.flush()
    await two.flush()
    for _ in range(100):
        await one.publish("work", b"x")
    await one.flush()
    for _ in range(100):
        if sum(counts.values()) == 100:
            break
        await asyncio.sleep(0.05)
    assert sum(counts.values()) == 100 and min(counts.values()) > 20, counts

    # A subscription that ends after two messages.
    few = await one.subscribe("few")
    await few.unsubscribe(limit=2)
    await one.flush()
    for number in range(5):
        await two.publish("few", str(number).encode())
    await two.flush()
    assert [(await few.next_msg(timeout=5)).data for _ in range(2)] == [b"0", b"1"]

    # The book: JetStream's publish, as it is.
    stream = one.jetstream()
    first = await stream.publish("app.orders.created", b'{"n":1}', headers={"Nats-Msg-Id": "one"})
    assert (first.stream, first.seq) == ("app", 1), first
    again = await stream.publish("app.orders.created", b'{"n":1}', headers={"Nats-Msg-Id": "one"})
    assert (again.seq, again.duplicate) == (1, True), again
    info = await stream.stream_info("app")
    assert info.state.last_seq == 1, info
    names = await stream.streams_info()
    assert "app" in [one.config.name for one in names], names

    await two.drain()
    await one.drain()
    assert not errors, errors
    print(json.dumps({"ok": True}))


asyncio.run(main(sys.argv[1:]))
