"""Files of other hosts: of those alone that are allowed, and never from a private address."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager

import httpx2

from internvl_chat.serving.refusals import Refusal

_MOST_REDIRECTS = 3
_DEFAULT_PORTS = {"http": 80, "https": 443}
# IPv4 addresses written as IPv6 ones, for networks that translate them.
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96")


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses that a name stands for now.

    Raises:
        OSError: none.
    """
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def is_public(address: str) -> bool:
    """Whether an address is one of the internet's, and not of this machine, its network or its provider's services."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour or (parsed.teredo and parsed.teredo[1])
        if inner:
            return is_public(str(inner))
        if parsed in _TRANSLATED:
            return False
    return parsed.is_global and not parsed.is_multicast


class Fetcher:
    """Fetches files from allowed hosts.

    A name is looked up once, and the connection goes to the address that was checked. Redirects are followed within
    the host that was named.

    Args:
        hosts: their names, with `:port` where it is not the scheme's own.
        seconds: that a file may take.
        client, look_up: for tests; they stand in for the network.
    """

    def __init__(
        self,
        hosts: Collection[str],
        seconds: float,
        client: httpx2.Client | None = None,
        look_up: Callable[[str, int], list[str]] = addresses_of,
    ) -> None:
        self.hosts = frozenset(host.lower() for host in hosts)
        self.seconds, self.look_up = seconds, look_up
        # No proxy from the environment: it would look names up by itself.
        self.client = client or httpx2.Client(timeout=seconds, trust_env=False)

    def fetch(self, url: str) -> Iterator[bytes]:
        """The file's bytes as they come.

        Raises:
            Refusal: the host is not allowed, its address is private, or it does not hand out the file in time.
        """
        ends = time.monotonic() + self.seconds
        target = _parsed(url)
        first_host = target.host
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                with self._asked(target) as response:
                    if not response.has_redirect_location:
                        yield from _pieces(response, url, ends)
                        return
                    target = _parsed(str(target.join(response.headers["location"])))
                    if target.host != first_host:
                        raise Refusal(f"{url}: leads to another host, {target.host}: give the file's own address")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Refusal(f"{url}: cannot be fetched ({type(error).__name__})") from error
        raise Refusal(f"{url}: leads from one address to the next, {_MOST_REDIRECTS} times: give the file's own")

    def _asked(self, target: httpx2.URL) -> AbstractContextManager[httpx2.Response]:
        """The reply of the target's host, at an address that was checked.

        The certificate is still held against the name. Packed replies could unfold to any size: none is asked for.
        """
        pinned = target.copy_with(host=self._address(target))
        headers = {"Host": target.netloc.decode("ascii"), "Accept-Encoding": "identity"}
        return self.client.stream("GET", pinned, headers=headers, extensions={"sni_hostname": target.host})

    def _address(self, target: httpx2.URL) -> str:
        usual = _DEFAULT_PORTS[target.scheme]
        port = target.port or usual
        if (target.host if port == usual else f"{target.host}:{port}") not in self.hosts:
            allowed = ", ".join(sorted(self.hosts)) or "none: send the file itself, as a data: URL or an upload"
            raise Refusal(f"{target.host}: is not among the hosts that files are fetched from ({allowed})")
        try:
            addresses = self.look_up(target.host, port)
        except (OSError, UnicodeError) as error:
            raise Refusal(f"{target.host}: has no address") from error
        if not addresses or not all(map(is_public, addresses)):
            raise Refusal(f"{target.host}: has a private address, and files are fetched from public ones alone")
        return addresses[0]


def _parsed(url: str) -> httpx2.URL:
    try:
        target = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise Refusal(f"{url[:200]}: is no address") from error
    if target.scheme not in _DEFAULT_PORTS or not target.host or target.userinfo:
        raise Refusal(f"{url[:200]}: expected http://HOST/PATH or https://HOST/PATH, without a password")
    return target


def _pieces(response: httpx2.Response, url: str, ends: float) -> Iterator[bytes]:
    if response.status_code != 200:
        raise Refusal(f"{url}: the host says {response.status_code}, expected 200 and the file")
    for piece in response.iter_raw():
        if time.monotonic() > ends:
            raise Refusal(f"{url}: takes too long to be fetched: send the file itself")
        yield piece
