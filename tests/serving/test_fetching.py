"""Files of other hosts: allowed ones, at public addresses, and no way around that."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

from internvl_chat.serving.media.fetching import Fetcher, is_public
from internvl_chat.serving.refusals import Refusal

PUBLIC = {"clips.example": "93.184.215.14", "other.example": "93.184.215.15", "six.example": "2606:2800:21f:cb07::1"}


Addresses = dict[str, list[str]]
Answer = Callable[[httpx2.Request], httpx2.Response]


def file(content: bytes) -> httpx2.Response:
    """A file that comes piece by piece."""
    return httpx2.Response(200, content=(bytes([byte]) for byte in content))


def fetcher(answer: Answer, addresses: Addresses | None = None, seconds: float = 9) -> Fetcher:
    """One whose network is `answer`; names have the addresses that are given, one more each time they are asked for."""
    known = {name: [address] for name, address in PUBLIC.items()} | (addresses or {})
    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    hosts = [*known, "clips.example:8443"]
    return Fetcher(hosts, seconds, client, lambda host, _port: [known[host].pop(0)])


@pytest.mark.parametrize("url", ["https://clips.example/a.mp4", "https://clips.example:8443/b", "http://six.example/"])
def test_a_file_comes_from_the_address_that_was_checked(url: str) -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return file(b"moving pictures")

    assert b"".join(fetcher(answer).fetch(url)) == b"moving pictures"
    (request,) = asked
    target = httpx2.URL(url)
    # A second look-up, which could give another address, is never made.
    assert request.url.host == PUBLIC[target.host] and request.url.path == target.path
    assert request.headers["host"] == target.netloc.decode()
    assert request.extensions["sni_hostname"] == target.host
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("leads_to", "said"),
    [
        ("http://169.254.169.254/latest/meta-data", "leads to another host, 169.254.169.254"),
        ("https://other.example/a", "leads to another host, other.example"),
        ("file:///etc/passwd", "expected http://HOST/PATH"),
        ("/again", "leads from one address to the next, 3 times"),
    ],
)
def test_redirects_lead_nowhere_else(leads_to: str, said: str) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.url.host == PUBLIC["clips.example"]
        return httpx2.Response(302, headers={"Location": leads_to})

    addresses = {"clips.example": [PUBLIC["clips.example"]] * 9}
    with pytest.raises(Refusal, match=said):
        list(fetcher(answer, addresses).fetch("https://clips.example/a"))


def test_a_redirect_within_the_host_is_followed_unless_its_name_has_moved_inside() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/a":
            return httpx2.Response(301, headers={"Location": "/b"})
        return file(b"there")

    public = PUBLIC["clips.example"]
    assert b"".join(fetcher(answer, {"clips.example": [public, public]}).fetch("http://clips.example/a")) == b"there"
    with pytest.raises(Refusal, match="clips.example: has a private address"):
        list(fetcher(answer, {"clips.example": [public, "10.0.0.7"]}).fetch("http://clips.example/a"))


@pytest.mark.parametrize(
    "url",
    ["http://clips.example:22/", "http://CLIPS.example.evil/", "http://a:b@clips.example/", "http://[::1", "http:///a"],
)
def test_other_hosts_ports_and_forms_are_refused(url: str) -> None:
    with pytest.raises(Refusal):
        list(fetcher(lambda _: pytest.fail("asked"), None).fetch(url))


def test_what_the_host_does_wrong_is_told() -> None:
    def fails(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no way")

    with pytest.raises(Refusal, match="the host says 404, expected 200"):
        list(fetcher(lambda _: httpx2.Response(404)).fetch("http://clips.example/a"))
    with pytest.raises(Refusal, match="cannot be fetched .ConnectError."):
        list(fetcher(fails).fetch("http://clips.example/a"))
    with pytest.raises(Refusal, match="takes too long"):
        list(fetcher(lambda _: file(b"slow"), seconds=-1).fetch("http://clips.example/a"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07::1", True),
        *[(address, False) for address in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254")],
        *[(address, False) for address in ("0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "::", "::1")],
        *[(address, False) for address in ("fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::a00:1")],
        ("2002:0a00:0001::", False),
    ],
)
def test_public_addresses(address: str, expected: bool) -> None:
    assert is_public(address) is expected
