"""What programs with python-socketio expect of the door. Usage: python python_socketio.py URL"""

import sys
import queue
import time

import socketio as library

URL = sys.argv[1]


def check(transports):
    client = library.Client(reconnection=False)
    events = queue.Queue()
    client.on("auth", lambda auth: events.put(("auth", auth)))
    client.on("message-back", lambda *args: events.put(("back", args)))
    auth = {"appId": "my_service", "appName": "Mi Servicio ñ€😀"}
    client.connect(URL, auth=auth, transports=transports, wait_timeout=3)
    assert events.get(timeout=3) == ("auth", auth)
    answer = client.call("message-with-ack", (1, {"x": 2}), timeout=3)
    assert list(answer) == [1, {"x": 2}], answer
    client.emit("message", b"\x01\x02\xff")
    assert events.get(timeout=3) == ("back", (b"\x01\x02\xff",))
    # Over several heartbeats.
    time.sleep(1)
    assert client.call("message-with-ack", "still", timeout=3) == "still"
    wanted = "polling" if transports == ["polling"] else "websocket"
    assert client.transport() == wanted, client.transport()
    client.disconnect()


for modes in (["polling"], ["websocket"], None):
    check(modes)
