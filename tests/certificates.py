"""A private CA, and a certificate of it for this machine."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


def behind_tls(server: ThreadingHTTPServer, context: ssl.SSLContext) -> str:
    """Have a server that runs speak TLS from now on; gives its new address."""
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return f"https://localhost:{server.server_port}"


def certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make a private CA; gives the file with its certificate, and what a server of it needs."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    def name(text: str) -> Any:
        return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, text)])

    now, keys = datetime.now(timezone.utc), [ec.generate_private_key(ec.SECP256R1()) for _ in "ab"]
    made = []
    for number, subject in enumerate(["private CA", "localhost"]):
        key = keys[number].public_key()
        builder = x509.CertificateBuilder(
            name("private CA"), name(subject), key, x509.random_serial_number(),
            now - timedelta(days=1), now + timedelta(days=1),
        )  # fmt: skip
        builder = builder.add_extension(x509.BasicConstraints(number == 0, None), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key), critical=False
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key())
        builder = builder.add_extension(issuer, critical=False)
        if number:
            names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
            builder = builder.add_extension(names, critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )  # fmt: skip
    authority, chain = folder / "ca.pem", folder / "server.pem"
    authority.write_bytes(made[0])
    chain.write_bytes(made[1] + plain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return authority, context
