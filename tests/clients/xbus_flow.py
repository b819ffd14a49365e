"""Actors of python-xbus: xbus_flow.py URL[,URL...] CA DIRECTORY TOKEN ENVELOPES [BYTES]. The directory has flow.key and
flow.csr. Registers an account with an emitter, a worker and a consumer, loads a pipeline, and sends envelopes along it.
"""

import asyncio
import json
import ssl
import sys
import time
import uuid

import nats
from xbus import client, control_nrpc, control_pb2, xbus_nrpc, xbus_pb2

PIPELINE = """
nodes:
- id: in
  type: emitter
  roles: [shop]
  sourcematch: {eventtypes: [order.placed]}
  outputs: [default]
- id: tax
  type: worker
  roles: [tax]
  inputs: [default]
  outputs: [default]
- id: archive
  type: consumer
  roles: [archive]
  inputs: [default]
edges:
- in.default->tax.default
- tax.default->archive.default
"""


async def connect(url, ca, **more):
    context = ssl.create_default_context(cafile=ca)
    return await nats.connect(url, tls=context, name="@3.0", allow_reconnect=False, **more)


async def set_up(url, ca, directory, token):
    with open(f"{directory}/flow.csr") as file:
        csr = file.read()
    anonymous, operator = await connect(url, ca), await connect(url, ca, token=token)
    registration = xbus_nrpc.SvcRegistrationClient(anonymous)
    request = xbus_pb2.RegistrationRequest(name="flow", type=xbus_pb2.Account.ACTOR, csr=csr)
    for name, kind, role in [
        ("shop", xbus_pb2.Actor.EMITTER, "shop"),
        ("tax", xbus_pb2.Actor.WORKER, "tax"),
        ("archive", xbus_pb2.Actor.CONSUMER, "archive"),
    ]:
        request.actorList.add(name=name, kind=kind, roles=[role])
    told = await registration.Register(request)
    accept = control_pb2.AccountUpdateRequest(account=xbus_pb2.Account(id=told.id, status=xbus_pb2.Account.ENABLED))
    await control_nrpc.AccountClient(operator).Update(accept)
    enabled = [xbus_pb2.Actor(id=actor.id, status=xbus_pb2.Actor.ENABLED) for actor in told.actorList]
    await control_nrpc.ActorClient(operator).Update(control_pb2.ActorRequest(actorList=enabled))
    told = await registration.Register(request)
    assert told.registrationStatus == xbus_pb2.Registration.ACCEPTED, told

    # A version that was active is never saved again.
    version = uuid.uuid4().hex
    pipelines = control_nrpc.PipelineClient(operator)
    info = control_pb2.PipelineInfo if hasattr(control_pb2, "PipelineInfo") else xbus_pb2.PipelineInfo
    saved = await pipelines.Save(
        control_pb2.PipelineSaveRequest(info=info(name="orders", version=version), graph=PIPELINE)
    )
    assert saved.isValid, saved
    active = info(id=saved.info.id, name="orders", version=version, status=info.ACTIVE)
    assert (await pipelines.SetStatus(active)).isValid
    await anonymous.close()
    await operator.close()
    with open(f"{directory}/flow.key") as file:
        key = file.read()
    return {"private-key": key, "certificate": told.signedCertificate, "csr": csr, "rootca": told.serverCA}


async def actor_client(url, tls, name, kind):
    conf = {"account-name": "flow", "nats-url": url, "no-reconnect": True, "tls": dict(tls)}
    conf["actors"] = {name: {"name": name, "kind": kind}}
    one = client.Client(conf)
    await one.connect()
    return one, one.get_actor(name)


async def main(urls, ca, directory, token, count, size="1024"):
    urls, count, size = urls.split(","), int(count), int(size)
    tls = await set_up(urls[0], ca, directory, token)
    at = lambda place: urls[place % len(urls)]
    emitting, shop = await actor_client(at(0), tls, "shop", "emitter")
    working, tax = await actor_client(at(1), tls, "tax", "worker")
    consuming, archive = await actor_client(at(2), tls, "archive", "consumer")
    consumed, states = {}, {}

    async def work(apc):
        envelope = await apc.read_envelope_complete("default", 60)
        output = apc.open_output("default", ["order.taxed"])
        for event in envelope.events:
            for item in event.items:
                await output.add_items("order.taxed", b"taxed " + item)
        await output.close()

    async def consume(apc):
        envelope = await apc.read_envelope_complete("default", 60)
        items = [item for event in envelope.events for item in event.items]
        key = items[0][:12].decode()
        consumed[key] = consumed.get(key, 0) + 1
        assert sum(map(len, items)) >= size, (len(items), size)

    async def state(message):
        told = xbus_pb2.EmitterEnvelopeState.FromString(message.data)
        states[message.subject.rsplit(".", 1)[-1]] = told.status

    await emitting.nc.subscribe(f"xbus.default.processstate.{shop.id}.>", cb=state)
    subscriptions = [await tax.subscribe(work), await archive.subscribe(consume)]
    begun = time.monotonic()
    chunk = 64 * 1024
    for number in range(count):
        output = shop.open_output("default", ["order.placed"])
        left = size
        first = b"%06d" % number
        while left > 0:
            part = first + b"x" * max(min(left, chunk) - len(first), 0)
            await output.add_items("order.placed", part)
            left -= len(part)
            first = b""
        await output.close()
    sent = time.monotonic() - begun
    deadline = time.monotonic() + 120
    wanted = {"taxed %06d" % number for number in range(count)}
    while wanted - consumed.keys() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    took = time.monotonic() - begun
    assert not wanted - consumed.keys(), sorted(wanted - consumed.keys())[:5]
    while len(states) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    for subscription in subscriptions:
        await subscription.unsubscribe()
    for one in (emitting, working, consuming):
        await one.nc.close()
    print(json.dumps({"ok": True, "consumed": len(consumed), "sent": round(sent, 2), "took": round(took, 2)}))


asyncio.run(main(*sys.argv[1:]))
