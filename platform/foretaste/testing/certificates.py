"""A signer and a certificate of its own, as files of the names that a Secret of Kubernetes has."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LASTS = timedelta(days=1)


def certificate(folder: Path, *names: str, addresses: tuple[str, ...] = (), now: datetime | None = None) -> Path:
    """Write ca.crt, tls.crt and tls.key for a server of these names and addresses; returns the folder."""
    at = now or datetime.now(UTC)
    signer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _named("signer")
    root = (
        x509.CertificateBuilder(authority, authority, signer.public_key(), x509.random_serial_number())
        .not_valid_before(at - LASTS)
        .not_valid_after(at + LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    said = [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
    leaf = (
        x509.CertificateBuilder(
            authority, _named((*names, *addresses)[0]), key.public_key(), x509.random_serial_number()
        )
        .not_valid_before(at - LASTS)
        .not_valid_after(at + LASTS)
        .add_extension(x509.SubjectAlternativeName(said), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.crt").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.crt").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.key").touch(mode=0o600)
    (folder / "tls.key").write_bytes(private)
    return folder


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
