"""Who belongs to the cluster talks over TLS; everybody else is refused at once and by name."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from engine.config import ClusterConfig
from engine.connections import connect
from engine.coordinator_link import CoordinatorLink
from engine.coordinator_server import CoordinatorServer, Heard
from engine.frames import as_bytes, receive, send
from engine.tls import UntrustedPeerError, client_context
from tests.engine.certificates import DAY, Authority
from tests.engine.serving import Serving, serving
from tests.engine.shards import vector

SIZE = 300_000


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def member(authority):
    return authority.issue("member")


@pytest.fixture
def link(tmp_path, member) -> Iterator[Serving]:
    """Two shards that share no memory with the replica."""
    with serving(tmp_path, size=SIZE, same_host=False, tls=member) as link:
        yield link


def refused(caplog, peer: tuple[str, int], reason: str) -> bool:
    """Exactly one line of the log tells that `peer` was refused."""
    deadline = time.monotonic() + 5
    line = re.compile(rf"refused peer={peer[0]}:{peer[1]}: .*{reason}", re.IGNORECASE)
    while not (found := line.findall(caplog.text)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return len(found) == 1


def still_serves(link: Serving) -> bool:
    link.server.fetch(0)
    return torch.equal(link.segment.parameters[0], vector(SIZE, seed=0))


def hangs_up(sock: socket.socket) -> bool:
    """The server hangs up on us."""
    sock.settimeout(10.0)
    try:
        while sock.recv_into(bytearray(4096)):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_pushes_and_fetches_over_tls_are_those_without(tmp_path, link):
    (tmp_path / "plain").mkdir()
    with serving(tmp_path / "plain", size=SIZE, same_host=False) as plain:
        for sequence in (1, 2, 3):
            for side in (link, plain):
                side.segment.gradients[0].copy_(vector(SIZE, sequence))
                side.exchange(sequence, buffer=1)
        assert torch.equal(link.segment.parameters[1], plain.segment.parameters[1])
    assert not torch.equal(link.segment.parameters[1], vector(SIZE, seed=0))


def test_what_goes_over_the_wire_is_neither_token_nor_gradient(link):
    link.segment.gradients[0].fill_(1.0)
    link.push(1)
    passed = b"".join(bytes(proxy.passed) for proxy in link.proxies)
    assert len(passed) > SIZE * 4
    assert link.hello["token"].encode() not in passed
    assert b"fetched_version" not in passed
    assert as_bytes(torch.ones(1000)).tobytes() not in passed


def test_a_lost_reply_over_tls_leads_to_one_application(link):
    link.push(1)
    link.proxies[0].lose_next_reply()
    answers = link.push(2)
    assert [answer.duplicate for answer in answers] == [True, False]
    assert [shard.version for shard in link.shards] == [2, 2]


def test_a_client_without_certificate_is_refused(link, authority, caplog):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.file)
    with socket.create_connection(link.endpoints[0].address) as plain:
        us = plain.getsockname()
        sock = context.wrap_socket(plain)  # TLS 1.3 tells the client later
        with sock:
            assert hangs_up(sock)
    assert refused(caplog, us, "peer_did_not_return_a_certificate")
    assert still_serves(link)


def test_a_client_of_another_ca_is_refused(tmp_path, link, authority, caplog):
    stranger = Authority(tmp_path, "other").issue("stranger")
    with connect(link.endpoints[0].address, 5.0, replace(stranger, ca_file=authority.file)) as sock:
        us = sock.getsockname()
        assert hangs_up(sock)
    assert refused(caplog, us, "certificate refused: unable to get local issuer certificate")
    assert still_serves(link)


def test_a_client_with_an_expired_certificate_is_refused(link, authority, caplog):
    with connect(link.endpoints[0].address, 5.0, authority.issue("old", ended=DAY)) as sock:
        us = sock.getsockname()
        assert hangs_up(sock)
    assert refused(caplog, us, "certificate refused: certificate has expired")
    assert still_serves(link)


def test_a_server_of_another_ca_is_not_talked_to(tmp_path, link):
    stranger = Authority(tmp_path, "other").issue("stranger")
    with pytest.raises(UntrustedPeerError, match="certificate refused: self-signed certificate"):
        connect(link.endpoints[0].address, 5.0, stranger)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.0\r\n\r\n", b"VDF2" + b"\0" * 40, b"\xff" * 99])
def test_plain_bytes_to_the_tls_port_are_refused(link, caplog, data):
    with socket.create_connection(link.endpoints[0].address) as sock:
        us = sock.getsockname()
        sock.sendall(data)
        assert hangs_up(sock)
    assert refused(caplog, us, "TLS: ")
    assert still_serves(link)


def test_tls_before_1_2_is_refused(link, member, caplog):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(member.ca_file)
    context.load_cert_chain(member.certificate_file, member.key_file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(link.endpoints[0].address) as plain:
        us = plain.getsockname()
        with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
            context.wrap_socket(plain)
    assert refused(caplog, us, "unsupported_protocol")


def test_a_flipped_bit_under_tls_ends_the_connection_and_the_push_is_applied_once(link):
    link.segment.gradients[0].copy_(vector(SIZE, 1))
    link.push(1)
    link.proxies[1].flip_a_bit_after(50_000)
    link.push(2)
    assert link.proxies[1].bits_flipped == 1
    assert [shard.version for shard in link.shards] == [2, 2]


def test_one_thread_may_receive_while_another_sends(member):
    """Both directions at once, more than the kernel holds."""
    server = CoordinatorServer("127.0.0.1", member)
    link = CoordinatorLink(server.address, server.token, "shard", 3, "tcp://w:1", 60.0, tls=member)
    try:
        peer = server.events.get(timeout=5).peer
        text, count = "x" * 500_000, 20

        def answer() -> None:
            for _ in range(count):
                server.send(peer, {"op": "there", "text": text})

        thread = threading.Thread(target=answer)
        thread.start()
        asking = threading.Thread(
            target=lambda: [link.send("here", text=text) for _ in range(count)]
        )
        asking.start()
        for _ in range(count):
            assert link.receive() == {"op": "there", "text": text}
            assert server.events.get(timeout=5) == Heard(peer, {"op": "here", "text": text})
        thread.join()
        asking.join()
    finally:
        link.close()
        server.close()


def test_nothing_secret_is_logged(tmp_path, link, authority, caplog):
    caplog.set_level("DEBUG")
    token = link.hello["token"]
    member = authority.issue("another")
    with connect(link.endpoints[0].address, 5.0, member) as sock:
        send(sock, link.hello | {"op": "hello", "token": token + "?"})
        with pytest.raises(ConnectionError):
            receive(sock)
        assert refused(caplog, sock.getsockname(), "a stranger without the run's token")
    key = member.key_file.read_text().splitlines()[1]
    assert token not in caplog.text
    assert key not in caplog.text


def test_off_loopback_nothing_starts_without_tls(member):
    with pytest.raises(ValueError, match=r"host=192.0.2.1: only loopback .* choose cluster=tls"):
        ClusterConfig(host="192.0.2.1")
    assert ClusterConfig(host="192.0.2.1", tls=member).tls == member


def test_a_key_that_others_may_read_is_refused(member):
    member.key_file.chmod(0o640)
    with pytest.raises(ValueError, match=r"mode 640, so others may read the key: chmod 600"):
        client_context(member)


def test_a_missing_file_is_named(tmp_path, member):
    with pytest.raises(ValueError, match=r"tls.ca_file=.*nowhere: there is no such file"):
        client_context(replace(member, ca_file=tmp_path / "nowhere"))


def test_a_file_that_is_no_certificate_is_named_and_not_shown(member):
    member.certificate_file.write_bytes(member.key_file.read_bytes())
    with pytest.raises(ValueError, match=r"TLS files .*member.pem") as caught:
        client_context(member)
    assert "PRIVATE" not in str(caught.value)
