"""Certificates of the day: a CA of trustme's, and what hosts get from it."""

from __future__ import annotations

import datetime
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from cachee_bridge.carriers.tls import Files

NOW = datetime.datetime.now(datetime.timezone.utc)
YESTERDAY, TOMORROW = NOW - datetime.timedelta(days=1), NOW + datetime.timedelta(days=1)


class Authority:
    """One CA, whose files go to `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self._ca = trustme.CA()
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, host: str, not_after: datetime.datetime | None = None, file: str = "") -> Files:
        """For DNS:`host`, in `file` or in files of its name."""
        return self._issue(self._ca, host, not_after, file)

    def issue_by_a_child(self, host: str) -> Files:
        """By a CA between this one and the host; its certificate follows the host's in the file."""
        return self._issue(self._ca.create_child_ca(), host, None, "")

    def _issue(self, ca: trustme.CA, host: str, not_after: datetime.datetime | None, file: str) -> Files:
        leaf = ca.issue_cert(host, not_after=not_after)
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return self._write(file or host, chain, leaf.private_key_pem.bytes())

    def issue_words(
        self, *words: str, dns: tuple[str, ...] = (), server_only: bool = False, file: str = "words"
    ) -> Files:
        """For URIs, which trustme does not make, beside DNS names."""
        names = [*map(x509.UniformResourceIdentifier, words), *map(x509.DNSName, dns)]
        return self._issue_with(x509.SubjectAlternativeName(names) if names else None, server_only, file)

    def issue_bytes(self, *names: bytes, kind: int = 0x82) -> Files:
        """For alternative names (DNS by default) that may be no text."""
        body = b"".join(bytes([kind, len(name)]) + name for name in names)
        value = bytes([0x30, len(body)]) + body
        extension = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, value)
        return self._issue_with(extension, False, "bytes")

    def _issue_with(self, names: x509.ExtensionType | None, server_only: bool, file: str) -> Files:
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH] + [ExtendedKeyUsageOID.CLIENT_AUTH] * (not server_only)
        issuer = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a host")]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(YESTERDAY)
            .not_valid_after(TOMORROW)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        ca_key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        made = builder.sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
        return self._write(
            file, made.public_bytes(serialization.Encoding.PEM), pem_of(key, serialization.NoEncryption())
        )

    def _write(self, name: str, cert: bytes, key: bytes) -> Files:
        paths = [self.folder / f"{name}.pem", self.folder / f"{name}.key"]
        for path, content in zip(paths, (cert, key), strict=True):
            path.write_bytes(content)
            path.chmod(0o600)
        return Files(str(paths[0]), str(paths[1]), str(self.ca))


def pem_of(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def table(files: Files) -> str:
    """The part of a configuration that names them."""
    return f'[bridge.tls]\ncert = "{files.cert}"\nkey = "{files.key}"\nca = "{files.ca}"\n'
