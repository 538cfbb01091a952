"""A redis-server of the tests' own on a free loopback port, a line to it that can be cut, and one that loses things."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from metaverify.policies.integrations.redis_link import connect

LASTING = ("--appendonly", "yes", "--appendfsync", "always")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """One that can be killed and started again; it keeps what it knows where it is told to."""

    def __init__(self, folder: Path, *options: str) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("no redis-server here: apt-get install redis-server")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        places = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder), "--save", "")
        self._command = ["redis-server", *places, *options]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with connect(self.url) as client:
            for _ in range(500):
                try:
                    if client.ping():
                        return
                except redis.RedisError:  # it is not there yet, or is reading what it kept
                    time.sleep(0.01)
        raise AssertionError("the server does not answer")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Lossy:
    """A client whose scripts lose what they are told to: the next ``lose`` may be "request" or "reply"."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.lose: Callable[[], str] = lambda: ""
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def register_script(self, script: str) -> Callable[..., Any]:
        run = self.client.register_script(script)

        def lossy(keys: list[str], args: list[Any]) -> Any:
            self.asked += 1
            lost = self.lose()
            if lost == "request":
                raise redis.ConnectionError("the request was lost")
            answer = run(keys, args)
            if lost == "twice":  # it was sent again on the way
                answer = run(keys, args)
            if lost == "reply":
                raise redis.TimeoutError("the reply was lost")
            return answer

        return lossy


class Relay:
    """Passes on what is said between a client and a server; when told to, it hangs up instead of bringing a reply."""

    def __init__(self, port: int) -> None:
        self._server = port
        self.drop = False
        self.dropped = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._pass_on, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._server)) as server:
            while request := client.recv(65536):
                server.sendall(request)
                reply = server.recv(65536)  # it was done
                if self.drop and b"EVALSHA" in request:
                    self.drop = False
                    self.dropped += 1
                    return
                client.sendall(reply)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("redis"))
    yield found
    found.kill()


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    """A patient one: the machine may be busy."""
    with connect(server.url, timeout=1.0) as found:
        found.flushall()
        yield found
