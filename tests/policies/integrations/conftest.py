"""No test of a gateway reaches beyond this machine."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else LiteLLM fetches prices when it is imported


def _is_loopback(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    try:
        return host in ("localhost", "", None) or ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets to anything but this machine are denied."""
    connect, connect_ex, look_up = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(host: Any) -> None:
        if not _is_loopback(host):
            raise AssertionError(f"a connection to {host!r}")

    def guarded(real: Any) -> Any:
        def connecting(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                check(address[0])
            return real(self, address)

        return connecting

    def looking_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        check(host)
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded(connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", looking_up)


@pytest.fixture
def mocked() -> Iterator[Any]:
    """The tiers of `mocks`, as a provider of LiteLLM's."""
    litellm = pytest.importorskip("litellm", reason="needs the extra `litellm`")

    from .mocks import Mock

    before = litellm.custom_provider_map
    mock = Mock()
    litellm.custom_provider_map = [{"provider": "mock", "custom_handler": mock}]
    yield mock
    litellm.custom_provider_map = before


@pytest.fixture
def api() -> Iterator[Callable[[bytes], tuple[str, list[bytes]]]]:
    """Sends the same bytes to every request, and keeps the requests."""
    servers = []

    def serve(reply: bytes) -> tuple[str, list[bytes]]:
        sent: list[bytes] = []

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                head = b"".join(iter(self.rfile.readline, b"\r\n"))
                length = next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))
                sent.append(head + b"\r\n" + self.rfile.read(int(length.split()[1])))
                self.wfile.write(reply)

        made = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        servers.append(made)
        threading.Thread(target=made.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{made.server_address[1]}/v1", sent

    yield serve
    for one in servers:
        one.shutdown()
        one.server_close()
