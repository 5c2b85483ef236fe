"""Certificates for tests: a CA in a folder, and what it signs."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.config import TlsConfig

DAY = datetime.timedelta(days=1)
_UNENCRYPTED = serialization.NoEncryption()


class Authority:
    """A CA of our own, in `folder`."""

    def __init__(self, folder: Path, name: str = "cluster") -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}-ca.pem"
        certificate = _signed(self._name, self._name, self._key.public_key(), self._key, ca=True)
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, ended: datetime.timedelta = -DAY) -> TlsConfig:
        """Files of a member; its certificate ended so long ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = _signed(subject, self._name, key.public_key(), self._key, ended=ended)
        files = TlsConfig(
            ca_file=self.file,
            certificate_file=self._folder / f"{name}.pem",
            key_file=self._folder / f"{name}-key.pem",
        )
        files.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key_file.touch(mode=0o600)
        format = serialization.PrivateFormat.PKCS8
        files.key_file.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, format, _UNENCRYPTED)
        )
        return files


def _signed(subject, issuer, public_key, key, *, ca=False, ended=-DAY) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
        .not_valid_before(now - 30 * DAY)
        .not_valid_after(now - ended)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .sign(key, hashes.SHA256())
    )
