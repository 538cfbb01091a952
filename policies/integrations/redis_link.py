"""A process's line to Redis: who it is, its messages numbered, and a thread that speaks where no request does."""

from __future__ import annotations

import atexit
import itertools
import secrets
import threading
import weakref
from collections.abc import Callable
from typing import Any

from metaverify.policies.forks import close_at_the_end_of_a_child

try:
    import redis as redis  # those who speak by a link have it from here, with the advice below
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as error:
    raise ImportError("sharing by Redis needs the extra `redis`: pip install 'metaverify[redis]'") from error

__all__ = ["Link", "connect", "registered"]

LONGEST = 1.0
"""The seconds that a client may wait for Redis."""


def connect(url: str, *, timeout: float = 0.05, **options: Any) -> redis.Redis:
    """A client that makes no request wait: what is not answered within ``timeout`` seconds is given up, and not tried
    again by the client, which has reasons to wait in between.

    Args:
        url: ``redis://``, ``rediss://`` (TLS, for which a longer timeout may be needed) or ``unix://``.  A host's name
            is looked up by the system, in its own time.
        timeout: seconds to connect, and to be answered.
        options: what else ``redis.Redis.from_url`` takes.
    """
    patience: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # no greeting but the one that is needed, and a connection that was dropped is seen
    }
    return redis.Redis.from_url(url, **patience | options)


def registered(client: redis.Redis, script: str) -> Callable[..., Any]:
    """A script that runs at the client's server, called with ``keys`` and ``args``.

    Raises:
        ValueError: requests would wait long for this client where Redis is away.
    """
    pool = client.connection_pool
    plain = pool.connection_class(**pool.connection_kwargs)
    for name in ("socket_timeout", "socket_connect_timeout"):
        seconds = getattr(plain, name)
        if seconds is None or seconds > LONGEST:
            raise ValueError(f"the client's {name} is {seconds}: requests would wait so long; use connect(url)")
    if plain.retry.get_retries() > 0:
        raise ValueError("the client tries again by itself: requests would wait for that; use connect(url)")
    return client.register_script(script)


class Link:
    """What makes messages of this process its own: a name that no other has, and numbers that go up.

    What is told is always the whole, the sum of everything so far, and never what changed.  So a message whose answer
    was lost needs no mending: the next one, with a higher number, says the same and more, and the script applies how
    it differs from what it has.  One that comes late has a lower number and is passed over.

    Args:
        beat: called every ``every`` seconds by a thread, once `start` was called, until the object is gone.
    """

    def __init__(self, beat: Callable[[], object], close: Callable[[], object], every: float) -> None:
        self.name = secrets.token_hex(8)
        self.wire = threading.Lock()  # one message at a time
        self._numbers = itertools.count(1)
        self._beat = weakref.WeakMethod(beat)
        self._every = every
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        alive = weakref.WeakMethod(close)
        self._close = lambda: called() if (called := alive()) else None

    def number(self) -> int:
        """The next message's."""
        return next(self._numbers)

    def start(self) -> bool:
        """Whether there is a thread that speaks."""
        if self._thread is not None:
            return not self._ended.is_set()
        with self._starting:
            if self._thread is None and not self._ended.is_set():
                thread = threading.Thread(target=self._speak, name="metaverify-redis", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system has none left
                    return False
                self._thread = thread
                atexit.register(self._close)
                close_at_the_end_of_a_child(self._close)
        return not self._ended.is_set()

    def end(self) -> None:
        """Have the thread end."""
        self._ended.set()
        atexit.unregister(self._close)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(LONGEST)

    def _speak(self) -> None:
        while not self._ended.wait(self._every):
            beat = self._beat()
            if beat is None:
                return
            beat()
            del beat
