"""URLs of strangers lead to the public internet and nowhere else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from discovery.web.errors import OutboundFailed, UrlRefused
from discovery.web.outbound import Outbound, Policy, Target, is_public, parse_target

STRICT = Policy()
LOOPBACK = IPv4Network("127.0.0.0/8")


# ---- what a URL may look like


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "/")),
        ("https://Example.COM:8443/a/b?c=d", Target("https", "example.com", 8443, "/a/b?c=d")),
        ("https://xn--bcher-kva.example/hook", Target("https", "xn--bcher-kva.example", 443, "/hook")),
        ("https://8.8.8.8/hook", Target("https", "8.8.8.8", 443, "/hook")),
        ("https://[2606:4700::1111]/hook", Target("https", "2606:4700::1111", 443, "/hook")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_public_url_is_taken_apart(url: str, target: Target) -> None:
    assert parse_target(url, STRICT) == target


def test_the_host_header_has_the_port_only_where_it_is_unusual() -> None:
    assert parse_target("https://a.example", STRICT).authority == "a.example"
    assert parse_target("https://a.example:8443", STRICT).authority == "a.example:8443"
    assert parse_target("https://[2606:4700::1111]:8443", STRICT).authority == "[2606:4700::1111]:8443"


REFUSED = {
    "clear text": "http://example.com/",
    "another scheme": "file:///etc/passwd",
    "gopher": "gopher://example.com:443/_x",
    "no scheme": "//example.com/",
    "one slash": "https:/example.com/",
    "no host": "https:///hook",
    "user": "https://example.com@127.0.0.1/",
    "user and password": "https://a:b@example.com/",
    "empty user": "https://@example.com/",
    "fragment": "https://example.com/#x",
    "port of ssh": "https://example.com:22/",
    "port of redis": "https://example.com:6379/",
    "port zero": "https://example.com:0/",
    "port too high": "https://example.com:99999/",
    "port in words": "https://example.com:https/",
    "backslash": "https://example.com\\@127.0.0.1/",
    "space": "https://example.com/ x",
    "line end": "https://example.com/\r\nx-evil: 1",
    "tab in host": "https://exam\tple.com/",
    "nul": "https://example.com/\0",
    "not ascii": "https://bücher.example/",
    "full-width digits": "https://１２７.０.０.１/",
    "too long": "https://example.com/" + "a" * 2048,
    "loopback": "https://127.0.0.1/",
    "loopback further up": "https://127.8.9.1/",
    "short": "https://127.1/",
    "decimal": "https://2130706433/",
    "hexadecimal": "https://0x7f000001/",
    "hexadecimal parts": "https://0x7f.0.0.1/",
    "octal": "https://0177.0.0.1/",
    "octal whole": "https://017700000001/",
    "ends in a number": "https://example.1/",
    "trailing dot": "https://127.0.0.1./",
    "nothing": "https://0.0.0.0/",
    "zero": "https://0/",
    "private 10": "https://10.0.0.1/",
    "private 172": "https://172.31.255.255/",
    "private 192": "https://192.168.1.1/",
    "carrier": "https://100.100.100.200/",
    "metadata": "https://169.254.169.254/latest/meta-data",
    "metadata of another cloud": "https://168.63.129.16/",
    "metadata by ipv6": "https://[fd00:ec2::254]/",
    "benchmarks": "https://198.18.0.1/",
    "multicast": "https://224.0.0.1/",
    "broadcast": "https://255.255.255.255/",
    "ipv6 loopback": "https://[::1]/",
    "ipv6 nothing": "https://[::]/",
    "mapped loopback": "https://[::ffff:127.0.0.1]/",
    "mapped in hexadecimal": "https://[::ffff:7f00:1]/",
    "compatible": "https://[::127.0.0.1]/",
    "nat64 of loopback": "https://[64:ff9b::7f00:1]/",
    "nat64 of metadata": "https://[64:ff9b::169.254.169.254]/",
    "local nat64": "https://[64:ff9b:1::1]/",
    "6to4 of loopback": "https://[2002:7f00:1::]/",
    "teredo": "https://[2001:0:4136:e378::]/",
    "link local": "https://[fe80::1]/",
    "link local with a zone": "https://[fe80::1%25eth0]/",
    "zone on a public one": "https://[2606:4700::1111%25lo]/",
    "unique local": "https://[fc00::1]/",
    "site local": "https://[fec0::1]/",
    "ipv6 multicast": "https://[ff02::1]/",
    "documentation": "https://[2001:db8::1]/",
    "brackets round a name": "https://[localhost]/",
    "brackets left open": "https://[::1/",
    "underscore at the end": "https://example-.com/",
}


@pytest.mark.parametrize("url", REFUSED.values(), ids=list(REFUSED))
def test_other_urls_are_refused_before_anybody_is_asked(url: str) -> None:
    with pytest.raises(UrlRefused) as caught:
        parse_target(url, STRICT, "webhook.url")
    assert caught.value.facts["param"] == "webhook.url"
    assert caught.value.status == 400


def test_what_carries_a_public_address_is_public() -> None:
    assert is_public(ip_address("64:ff9b::8.8.8.8"))
    assert is_public(ip_address("::ffff:8.8.8.8"))


# ---- what is asked


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on loopback, and its port."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    opened = await asyncio.start_server(served, "127.0.0.1", 0, ssl=context)
    try:
        yield opened.sockets[0].getsockname()[1]
    finally:
        opened.close()


def says(answer: bytes, seen: list[bytes]) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().splitlines() if b"content-length" in line)
        seen.append(head + await reader.readexactly(length))
        writer.write(answer)
        await writer.drain()

    return serve


def local(port: int, *, seconds: float = 10.0) -> Policy:
    return Policy(frozenset({port}), (LOOPBACK,), http=True, seconds=seconds)


class Names:
    """A resolver that answers otherwise each time, and counts."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers, self.asked = list(answers), 0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return self.answers.pop(0)


async def test_the_name_goes_into_the_host_header_and_the_connection_to_the_address() -> None:
    seen: list[bytes] = []
    async with server(says(b"HTTP/1.1 204 No Content\r\n\r\n", seen)) as port:
        outbound = Outbound(local(port), Names(["127.0.0.1"]))
        target = outbound.target(f"http://hooks.example:{port}/in?a=b")
        assert await outbound.post(target, b'{"a":1}', {"x-mine": "yes"}) == 204
    assert seen[0].startswith(b"POST /in?a=b HTTP/1.1\r\n")
    assert f"host: hooks.example:{port}".encode() in seen[0].lower()
    assert b"x-mine: yes" in seen[0]
    assert seen[0].endswith(b'\r\n\r\n{"a":1}')


async def test_a_name_that_changes_its_mind_is_asked_once() -> None:
    seen: list[bytes] = []
    async with server(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", seen)) as port:
        names = Names(["127.0.0.1"], ["169.254.169.254"], ["169.254.169.254"])
        outbound = Outbound(local(port), names)
        target = outbound.target(f"http://rebind.example:{port}/")
        assert await outbound.post(target, b"", {"content-type": "x"}) == 200
        assert names.asked == 1
        with pytest.raises(UrlRefused):  # looked at anew each time
            await outbound.post(target, b"", {})
    assert len(seen) == 1


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:10.0.0.1"], ["64:ff9b::a00:1"], ["fe80::1%2"]]
)
async def test_one_address_that_is_not_public_is_enough_to_refuse(addresses: list[str]) -> None:
    outbound = Outbound(STRICT, Names(addresses))
    with pytest.raises(UrlRefused):
        await outbound.post(outbound.target("https://example.com"), b"", {})


async def test_a_name_without_an_address_is_no_answer() -> None:
    outbound = Outbound(STRICT, Names([]))
    with pytest.raises(OutboundFailed) as caught:
        await outbound.post(outbound.target("https://example.com"), b"", {})
    assert caught.value.facts["reason"] == "no_address"


async def test_the_second_address_is_tried_where_the_first_is_not_there() -> None:
    seen: list[bytes] = []
    async with server(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", seen)) as port:
        outbound = Outbound(local(port), Names(["127.9.9.9", "127.0.0.1"]))
        assert await outbound.post(outbound.target(f"http://two.example:{port}"), b"", {}) == 200
        none = Outbound(local(port), Names(["127.9.9.9"]))
        with pytest.raises(OutboundFailed) as caught:
            await none.post(none.target(f"http://two.example:{port}"), b"", {})
    assert caught.value.facts["reason"] == "unreachable"


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    seen: list[bytes] = []
    answer = b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n"
    async with server(says(answer, seen)) as port:
        outbound = Outbound(local(port), Names(["127.0.0.1"]))
        assert await outbound.post(outbound.target(f"http://a.example:{port}"), b"", {}) == 302
    assert len(seen) == 1


async def test_who_is_slow_is_left() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"H")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with server(drip) as port:
        outbound = Outbound(local(port, seconds=0.2), Names(["127.0.0.1"]))
        with pytest.raises(OutboundFailed) as caught:
            await outbound.post(outbound.target(f"http://slow.example:{port}"), b"", {})
    assert caught.value.facts["reason"] in {"timeout", "no_answer"}


async def test_a_name_that_takes_too_long_is_left() -> None:
    async def never(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    outbound = Outbound(Policy(seconds=0.05), never)
    with pytest.raises(OutboundFailed) as caught:
        await outbound.post(outbound.target("https://example.com"), b"", {})
    assert caught.value.facts["reason"] == "timeout"


async def test_a_huge_answer_is_not_read() -> None:
    written = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with server(pour) as port:
        outbound = Outbound(local(port), Names(["127.0.0.1"]))
        assert await outbound.post(outbound.target(f"http://big.example:{port}"), b"", {}) == 200
    assert written < 50 * 2**20  # what fits into the buffers of the system, not ten gigabytes


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n", b""]
)
async def test_what_is_no_answer_is_said_to_be_none(answer: bytes) -> None:
    async with server(says(answer, [])) as port:
        outbound = Outbound(local(port), Names(["127.0.0.1"]))
        with pytest.raises(OutboundFailed) as caught:
            await outbound.post(outbound.target(f"http://odd.example:{port}"), b"", {})
    assert caught.value.facts["reason"] == "no_answer"


def certificate(directory: Path, name: str) -> Path:
    """A certificate for ``name``, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


async def test_the_certificate_is_that_of_the_name_and_not_of_the_address(tmp_path: Path) -> None:
    path, named = certificate(tmp_path, "hooks.example"), list[str | None]()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    trust = ssl.create_default_context(cafile=str(path))
    async with server(says(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", []), context) as port:
        policy = Policy(frozenset({port}), (LOOPBACK,))
        for host, whom, works in (
            ("hooks.example", trust, True),
            ("other.example", trust, False),
            ("hooks.example", None, False),
        ):
            outbound = Outbound(policy, Names(["127.0.0.1"]), whom)
            target = outbound.target(f"https://{host}:{port}/")
            if works:
                assert await outbound.post(target, b"", {}) == 200
            else:
                with pytest.raises(OutboundFailed):
                    await outbound.post(target, b"", {})
    assert named[:2] == ["hooks.example", "other.example"]
