"""Serve a folder by HTTPS on this machine, read FOLDER/pets.tar or staged data; say what came."""

import datetime
import http.server
import json
import os
import re
import ssl
import sys
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

FOLDER = Path(sys.argv[1])
NUM_RANGES = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        global NUM_RANGES
        path = FOLDER / self.path.lstrip("/")
        data = path.read_bytes() if path.is_file() else b""
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status = 200 if path.is_file() else 404
        whole = len(data)
        if wanted and status == 200:
            NUM_RANGES, status = NUM_RANGES + 1, 206
            data = data[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{wanted[2]}/{whole}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def write_certificate(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )


def main() -> None:
    pem = FOLDER / "server.pem"
    write_certificate(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://localhost:{server.server_port}/pets.tar"
    if sys.argv[2:] == ["untrusted"]:
        print(read_untrusted(url))
        return
    os.environ["SSL_CERT_FILE"] = str(pem)  # before aiohttp makes its context
    if len(sys.argv) > 2:
        print(read_in_place(f"https://localhost:{server.server_port}/{sys.argv[2]}"))
        return

    from tests.data.sources import listed, opened

    found = listed(opened(url, "archive", work=FOLDER / "work"))
    local = listed(opened(FOLDER / "pets.tar", "archive", work=FOLDER / "work"))
    names = sorted(name for split in found.values() for name in split)
    print(json.dumps({"names": names, "same": found == local, "num_ranges": NUM_RANGES}))


def read_in_place(url: str) -> str:
    """Labels of all test images of staged data behind the URL, and how many tars were kept."""
    from data.fetch import use_in_place
    from data.manifest import read_manifest
    from data.test_images import TestReader

    there = read_manifest(FOLDER / url.rpartition("/")[2])
    room = max(entry.num_bytes for entry in there.entries)
    here = use_in_place(url, FOLDER / "here", room)
    labels = [label for split in ("train", "test") for _, label in TestReader(here, split)]
    return json.dumps({"labels": labels, "num_tars": len(list(here.glob("*.tar")))})


def read_untrusted(url: str) -> str:
    from data.sources.places import is_file
    from data.sources.source import SourceError

    try:
        is_file(url)
    except SourceError as error:
        return str(error)
    return "was read"


main()
