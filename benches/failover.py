#!/usr/bin/env python3
"""How long a cluster pauses when its leader goes: the longest gap between acknowledgements.

    benches/failover.py BINARY [--how kill|freeze|terminate] [--runs 10] [--rate 2000]

Starts three nodes on loopback in a temporary directory. Twelve connections publish events with keys at a
steady rate in all, each to a node of its own until that one fails it, then to the next. Two seconds in, the
leader gets SIGKILL, SIGSTOP or SIGTERM. Afterwards every acknowledged event must be readable, once.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

CONNECTIONS = 12
SIGNALS = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "terminate": signal.SIGTERM}


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        ports = free_ports(9)
        self.peer, self.web, self.log = ports[:3], ports[3:6], ports[6:]
        self.founders = ",".join(f"{n + 1}=127.0.0.1:{port}" for n, port in enumerate(self.peer))
        self.nodes = [None] * 3
        for n in range(3):
            self.start(n)
        self.wait_ready()

    def start(self, n):
        errors = open(os.path.join(self.directory, f"{n + 1}.log"), "ab")
        self.nodes[n] = subprocess.Popen(
            [self.binary, "serve", "--node", str(n + 1), "--data", os.path.join(self.directory, str(n + 1)),
             "--web", f"127.0.0.1:{self.web[n]}", "--log", f"127.0.0.1:{self.log[n]}", "--cluster", self.founders],
            stdout=subprocess.DEVNULL, stderr=errors)

    def ready(self, n):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.web[n]}/readyz", timeout=1).status == 200
        except OSError:
            return False

    def wait_ready(self):
        until = time.monotonic() + 30
        while not all(self.ready(n) for n in range(3)):
            if time.monotonic() > until:
                raise SystemExit("the cluster is not ready; see the logs in " + self.directory)
            time.sleep(0.05)

    def leader(self):
        view = json.load(urllib.request.urlopen(f"http://127.0.0.1:{self.web[0]}/api/cluster", timeout=2))
        return view["leader"] - 1

    def stop(self):
        for node in self.nodes:
            node.kill()
            node.wait()


class Load:
    """Publishers; `acknowledged` holds the moment and the name of each event."""

    def __init__(self, cluster, rate, run):
        self.cluster, self.rate, self.run = cluster, rate, run
        self.acknowledged, self.errors, self.stopped = [], 0, False
        self.threads = [threading.Thread(target=self.publish, args=(n,), daemon=True) for n in range(CONNECTIONS)]
        for thread in self.threads:
            thread.start()

    def publish(self, number):
        node, link, count, due = number % 3, None, 0, time.monotonic()
        while not self.stopped:
            time.sleep(max(0, due - time.monotonic()))
            due = max(due + CONNECTIONS / self.rate, time.monotonic() - 0.5)
            count += 1
            name = f"{self.run}-{number}-{count}"
            body = json.dumps({"subject": f"gap{self.run}.x", "key": name, "payload": name}).encode()
            request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            while not self.stopped:
                try:
                    if link is None:
                        link = socket.create_connection(("127.0.0.1", self.cluster.log[node]), timeout=1)
                        link.settimeout(6)
                    link.sendall(request)
                    answer = link.recv(4096)
                    # A key that was processed means that the first try was stored.
                    if answer.split(b" ", 2)[1:2] in ([b"202"], [b"409"]) and b"\r\n\r\n" in answer:
                        self.acknowledged.append((time.monotonic(), name))
                        if b" 409 " in answer[:16]:
                            link.close()
                            link = None
                        break
                except OSError:
                    pass
                self.errors += 1
                node, link = (node + 1) % 3, None
                time.sleep(0.002)

    def stop(self):
        self.stopped = True
        for thread in self.threads:
            thread.join()


def stored(cluster, run, count):
    """Payloads of the run's namespace, as the first node has them."""
    address = f"http://127.0.0.1:{cluster.log[0]}/?subject=gap{run}.x&start=oldest"
    found = []
    with urllib.request.urlopen(address, timeout=10) as stream:
        for line in stream:
            if line.startswith(b"data:"):
                found.append(json.loads(line[5:])["payload"])
                if len(found) >= count:
                    return found
    return found


def one(cluster, how, rate, run):
    load = Load(cluster, rate, run)
    time.sleep(2)
    victim = cluster.leader()
    at = time.monotonic()
    cluster.nodes[victim].send_signal(SIGNALS[how])
    time.sleep(4)
    if how == "freeze":
        cluster.nodes[victim].send_signal(signal.SIGCONT)
    load.stop()
    if how != "freeze":
        cluster.nodes[victim].wait()
        cluster.start(victim)
    cluster.wait_ready()
    times = sorted(moment for moment, _ in load.acknowledged)
    gap = max(after - before for before, after in zip(times, times[1:]) if after > at)
    names = {name for _, name in load.acknowledged}
    found = stored(cluster, run, len(names))
    missing, twice = len(names - set(found)), len(found) - len(set(found))
    print(f"run {run}: {gap * 1000:.0f} ms, {len(times)} acknowledged, {load.errors} tries failed, "
          f"{missing} missing, {twice} stored twice", flush=True)
    if missing or twice:
        raise SystemExit("the promise is broken")
    return gap * 1000


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("binary")
    arguments.add_argument("--how", choices=SIGNALS, default="kill")
    arguments.add_argument("--runs", type=int, default=10)
    arguments.add_argument("--rate", type=int, default=2000, help="events a second")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="rollbook-failover-") as directory:
        cluster = Cluster(os.path.abspath(chosen.binary), directory)
        try:
            gaps = [one(cluster, chosen.how, chosen.rate, run) for run in range(1, chosen.runs + 1)]
        finally:
            cluster.stop()
    print(f"{chosen.how}: median {statistics.median(gaps):.0f} ms, worst {max(gaps):.0f} ms, {len(gaps)} runs")


main()
