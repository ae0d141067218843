"""Certificates for tests, self-signed or by an authority of their own, as files."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def write_certificate(
    folder: Path, *, names: tuple[str, ...] = ("127.0.0.1", "localhost"), days: float = 90, authority: bool = False
) -> tuple[Path, Path]:
    """Write ``cert.pem`` and ``key.pem`` (mode 0600); by an authority, its certificate stands behind the other."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    if authority:
        signer = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
        chain = [_sign(issuer, issuer, signer.public_key(), signer, (), 365, True)]
    else:
        signer, issuer, chain = key, subject, []
    made = [_sign(subject, issuer, key.public_key(), signer, names, days, False), *chain]
    paths = folder / "cert.pem", folder / "key.pem"
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    contents = (
        b"".join(each.public_bytes(serialization.Encoding.PEM) for each in made),
        key.private_bytes(serialization.Encoding.PEM, *plain),
    )
    for path, content in zip(paths, contents, strict=True):
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(content)
        fresh.replace(path)
    return paths


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    days: float,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 400 * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
