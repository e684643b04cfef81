import socket

import pytest

from lightning_synthqual.extractors.network import check_reachable, no_endless_waiting


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The addresses that were connected to; no proxies but those a test sets."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    addresses = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        addresses.append(address)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    return addresses


@pytest.mark.parametrize(
    ("url", "proxy", "address"),
    [
        ("https://example.org/a", None, ("example.org", 443)),
        ("http://example.org:8080/a", None, ("example.org", 8080)),
        ("https://example.org/a", "http://proxy.local:3128", ("proxy.local", 3128)),
        ("https://example.org/a", "proxy.local:3128", ("proxy.local", 3128)),
        ("http://example.org/a", "http://proxy.local:3128", ("example.org", 80)),
        ("https://inside.local/a", "http://proxy.local:3128", ("inside.local", 443)),
    ],
)
def test_the_server_or_its_proxy_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, int]], url: str, proxy: str | None, address: tuple[str, int]
) -> None:
    if proxy is not None:
        monkeypatch.setenv("https_proxy", proxy)
        monkeypatch.setenv("no_proxy", "inside.local")
    check_reachable(url)
    assert asked == [address]


def test_a_server_that_does_not_listen_is_named() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"^127\.0\.0\.1 cannot be reached: "):
            check_reachable(f"http://127.0.0.1:{closed.getsockname()[1]}")


@pytest.mark.parametrize(("before", "inside"), [(None, 20.0), (3.0, 3.0)])
def test_waiting_is_bounded_and_the_setting_put_back(before: float | None, inside: float) -> None:
    socket.setdefaulttimeout(before)
    try:
        with no_endless_waiting():
            assert socket.getdefaulttimeout() == inside
        assert socket.getdefaulttimeout() == before
    finally:
        socket.setdefaulttimeout(None)
