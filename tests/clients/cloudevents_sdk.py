"""The CloudEvents SDK for Python: what it writes, in each of its modes, is what it reads back from a stream.

Arguments: the URL of the event log, a namespace.
"""

import json
import sys
import urllib.request
from datetime import datetime, timezone

from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

URL, NAMESPACE = sys.argv[1:]


def event(name, data, **more):
    """An event of the shop."""
    attributes = {
        "id": name, "source": "/shop", "type": f"{NAMESPACE}.order.created", "specversion": "1.0",
        "subject": "Größe 17", "time": datetime(2024, 3, 15, 10, 30, 45, tzinfo=timezone.utc), "tenant": "a \"b\" %",
    }
    return CloudEvent(attributes={**attributes, **more}, data=data)


def send(message):
    """Publishes it: the id of the stored event."""
    request = urllib.request.Request(URL, data=message.body, headers=message.headers, method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 202, answer.status
        return answer.headers["X-BUS-EVENT-ID"]


def follow(count):
    """The first events of the namespace, as the SDK reads them."""
    where = f"{URL}/?subject={NAMESPACE}.%3E&start=oldest"
    request = urllib.request.Request(where, headers={"Accept": "application/cloudevents+json"})
    seen, data = [], []
    with urllib.request.urlopen(request, timeout=10) as stream:
        for line in stream:
            line = line.rstrip(b"\n")
            if line.startswith(b"data: "):
                data.append(line[6:])
            elif not line and data:
                headers = {"content-type": "application/cloudevents+json"}
                seen.append(from_structured_event(HTTPMessage(headers=headers, body=b"\n".join(data))))
                data = []
            if len(seen) == count:
                return seen
    raise AssertionError(f"the stream ended after {len(seen)} events")


def same(came, sent):
    """Whether all that was sent came back."""
    assert came.get_attributes() == sent.get_attributes(), (came.get_attributes(), sent.get_attributes())
    assert came.get_data() == sent.get_data(), (came.get_data(), sent.get_data())


def main():
    """Sends and follows."""
    of_json = {"datacontenttype": "application/json"}
    sent = [
        event("s-json", {"n": [1, None, "é"]}, **of_json),
        event("s-text", "a line\nand another", datacontenttype="text/plain"),
        event("s-bytes", b"\x00\x01\xff", datacontenttype="image/png"),
    ]
    for one in sent:
        assert send(to_structured_event(one)) == one.get_id()
    binary = [
        event("b-json", {"n": 1}, **of_json),
        event("b-text", "Größe", datacontenttype="text/plain; charset=utf-8"),
        event("b-bytes", b"\x00\xff", datacontenttype="application/octet-stream"),
    ]
    for one in binary:
        assert send(to_binary_event(one)) == one.get_id()
    batch = [event("a-1", {"n": 1}, **of_json), event("a-2", {"n": 2}, **of_json)]
    body = json.dumps([json.loads(to_structured_event(one).body) for one in batch]).encode()
    send(HTTPMessage(headers={"content-type": "application/cloudevents-batch+json"}, body=body))
    sent += binary + batch
    seen = follow(len(sent))
    for came, one in zip(seen, sent, strict=True):
        same(came, one)
    print("all came back")


main()
