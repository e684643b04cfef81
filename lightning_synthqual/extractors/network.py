"""Downloads that fail within seconds where there is no network."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_CONNECT_SECONDS = 5.0
_SILENT_SECONDS = 20.0  # longest wait for the next byte
_PORTS = {"http": 80, "https": 443}


def check_reachable(url: str) -> None:
    """Connect once to the server of a URL, or to the proxy that leads there, before a library retries for long.

    Args:
        url: An ``http`` or ``https`` URL.

    Raises:
        OSError: If nothing answers within five seconds.
    """
    host, port = _address(url)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise OSError(f"{host} cannot be reached: {error}") from error


def _address(url: str) -> tuple[str, int]:
    """Host and port to connect to: the server's, or those of the proxy that the environment names for it."""
    server = urlsplit(url)
    proxies = getproxies()
    proxy = None if proxy_bypass(server.hostname or "") else proxies.get(server.scheme) or proxies.get("all")
    target = server if proxy is None else urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return target.hostname or "", target.port or _PORTS.get(target.scheme, 1080)


@contextmanager
def no_endless_waiting() -> Iterator[None]:
    """Let connections that set no timeout of their own give up after 20 seconds without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENT_SECONDS if before is None else before)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
