"""A node to test against: the one at ROLLBOOK_WEB, or one of its own of the program ROLLBOOK_BIN."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request
from collections.abc import Callable
from typing import Any

SOON_SECONDS = 15.0


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Node:
    """A process with a data directory of its own; a test may kill and start it again."""

    def __init__(self, port: int = 0) -> None:
        self.port, self.web = port, ""
        self._data = tempfile.mkdtemp(prefix="rollbook-python-")
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Node:
        flags = ["--data", self._data, "--web", f"127.0.0.1:{self.port}", "--log", "127.0.0.1:0", "--peer", "off"]
        self._process = subprocess.Popen(
            [os.environ["ROLLBOOK_BIN"], "serve", *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout
        for line in self._process.stdout:
            word, _, rest = line.partition(" ")
            if word == "web":
                self.web = rest.strip().rstrip("/")
            if word.strip() == "ready":
                return self
        raise AssertionError("the node did not start")

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self._process:
            self._process.send_signal(how)
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._data, ignore_errors=True)


_shared: Node | None = None


def web() -> str:
    """The address of the node that tests share, ``http://host:port``."""
    global _shared
    if given := os.environ.get("ROLLBOOK_WEB"):
        return given.rstrip("/")
    if "ROLLBOOK_BIN" not in os.environ:
        raise unittest.SkipTest("neither ROLLBOOK_WEB nor ROLLBOOK_BIN is set")
    if _shared is None:
        _shared = Node().start()
        unittest.addModuleCleanup(_release)
    return _shared.web


def _release() -> None:
    global _shared
    if _shared:
        _shared.remove()
    _shared = None


def ws(address: str) -> str:
    """The WebSocket at a web address."""
    return address.replace("http", "ws", 1) + "/ws"


async def http(method: str, address: str) -> Any:
    """The JSON that a request is answered with, or ``None``."""

    def ask() -> Any:
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=SOON_SECONDS) as answer:
            body = answer.read()
            return json.loads(body) if body else None

    return await asyncio.to_thread(ask)


async def until(what: Callable[[], Any], message: str = "it does not happen") -> Any:
    """Waits until something is true."""
    end = time.monotonic() + SOON_SECONDS
    while not (found := what()):
        if time.monotonic() > end:
            raise AssertionError(message)
        await asyncio.sleep(0.01)
    return found
