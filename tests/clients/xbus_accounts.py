"""An account of python-xbus: xbus_accounts.py URL CA DIRECTORY TOKEN. The directory has shop.key and shop.csr."""

import asyncio
import json
import ssl
import sys
import uuid

import nats
import nrpc.exc
from xbus import client, conn, control_nrpc, control_pb2, xbus_nrpc, xbus_pb2


async def connect(url, ca, **more):
    context = ssl.create_default_context(cafile=ca)
    return await nats.connect(url, tls=context, name="@3.0", allow_reconnect=False, **more)


async def main(url, ca, directory, token):
    with open(f"{directory}/shop.csr") as file:
        csr = file.read()
    anonymous = await connect(url, ca)
    operator = await connect(url, ca, token=token)
    registration = xbus_nrpc.SvcRegistrationClient(anonymous)
    request = xbus_pb2.RegistrationRequest(name="shop", type=xbus_pb2.Account.ACTOR, csr=csr)
    request.actorList.add(name="ledger", kind=xbus_pb2.Actor.WORKER, roles=["all"])
    told = await registration.Register(request)
    assert told.registrationStatus == xbus_pb2.Registration.PENDING, told

    accounts = control_nrpc.AccountClient(operator)
    listed = (await accounts.List(control_pb2.AccountListRequest())).accountList
    assert [(one.name, one.status) for one in listed] == [("shop", xbus_pb2.Account.PENDING)], listed
    accept = control_pb2.AccountUpdateRequest(account=xbus_pb2.Account(id=told.id, status=xbus_pb2.Account.ENABLED))
    accepted = await accounts.Update(accept)
    assert accepted.status == xbus_pb2.Account.ENABLED and "BEGIN CERTIFICATE" in accepted.cert, accepted
    actors = control_nrpc.ActorClient(operator)
    enable = xbus_pb2.Actor(id=told.actorList[0].id, status=xbus_pb2.Actor.ENABLED)
    enabled = await actors.Update(control_pb2.ActorRequest(actorList=[enable]))
    assert enabled.actorList[0].status == xbus_pb2.Actor.ENABLED, enabled

    told = await registration.Register(request)
    assert told.registrationStatus == xbus_pb2.Registration.ACCEPTED, told
    with open(ca) as file:
        assert told.serverCA == file.read()
    with open(f"{directory}/shop.key") as file:
        key = file.read()
    tls = {"private-key": key, "certificate": told.signedCertificate, "csr": csr, "rootca": told.serverCA}
    conf = {"account-name": "shop", "nats-url": url, "no-reconnect": True, "tls": tls}
    conf["actors"] = {"ledger": {"name": "ledger", "kind": "worker"}}
    shop = client.Client(conf)
    await shop.connect()
    assert shop.conf["account-id"] == str(uuid.UUID(bytes=told.id)), shop.conf["account-id"]
    assert shop.get_actor("ledger").id == str(uuid.UUID(bytes=told.actorList[0].id))

    # python-nrpc makes up inboxes without a dot for a client that makes up none.
    inboxes = conn.CustomInboxPrefixConn(operator, "_INBOX.")
    all_actors = [reply async for reply in xbus_nrpc.SentinelClient(inboxes).ListActors()]
    assert [actor.name for reply in all_actors for actor in reply.actors] == ["ledger"], all_actors
    try:
        await accounts.Delete(control_pb2.AccountIDRequest(accountID=b"short"))
        raise AssertionError("an id of five bytes")
    except nrpc.exc.ClientError as error:
        assert "16 bytes" in str(error), error
    await accounts.Delete(control_pb2.AccountIDRequest(accountID=told.id))
    for _ in range(200):
        if shop.nc.is_closed:
            break
        await asyncio.sleep(0.05)
    assert shop.nc.is_closed, "the client of a deleted account stays connected"
    await anonymous.close()
    await operator.close()
    print(json.dumps({"ok": True}))


asyncio.run(main(*sys.argv[1:]))
