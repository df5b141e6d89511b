"""A real nginx on 127.0.0.1 for tests, with a certificate of its own."""

import datetime
import ipaddress
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.ports import free_port

HOST = "chat.example.org"
DOC = Path(__file__).parent.parent / "docs" / "reverse-proxy.md"
_HTTP = """daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {block}
}}
"""


@dataclass(frozen=True)
class Certificate:
    """Of `HOST`, signed by itself."""

    certificate: Path
    key: Path

    def trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


def make_certificate(folder: Path) -> Certificate:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    names = x509.SubjectAlternativeName([x509.DNSName(HOST), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(names, critical=False)
    day = datetime.timedelta(days=1)
    signed = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    made.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made


def documented(language: str) -> str:
    """The block of docs/reverse-proxy.md in this language."""
    return DOC.read_text().split(f"```{language}\n")[1].split("```")[0]


def documented_nginx(app: int, port: int, certificate: Certificate) -> str:
    """The documented block as it stands, but for the ports and the files of the certificate."""
    block = documented("nginx")
    for written, meant in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/certs/chat.example.org.pem", str(certificate.certificate)),
        ("/etc/ssl/private/chat.example.org.key", str(certificate.key)),
        ("http://127.0.0.1:7860/", f"http://127.0.0.1:{app}/"),
    ):
        assert block.count(written) == 1, written
        block = block.replace(written, meant)
    return block


@contextmanager
def nginx(folder: Path, block: str) -> Iterator[None]:
    """Serves a block of its configuration. Skips the test where nginx is not installed, or fails it with
    GLASSBOX_TEST_NGINX=required.
    """
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        if os.environ.get("GLASSBOX_TEST_NGINX") == "required":
            pytest.fail("nginx is not installed, and GLASSBOX_TEST_NGINX=required")
        pytest.skip("nginx is not installed")
    folder.mkdir(exist_ok=True)
    config, ready = folder / "nginx.conf", free_port()
    user = "" if os.geteuid() else "user root;"  # its workers write into the folder
    block += f"\nserver {{ listen 127.0.0.1:{ready}; return 204; }}\n"
    config.write_text(_HTTP.format(folder=folder, user=user, block=block))
    with (folder / "output.log").open("w") as output:
        process = subprocess.Popen([program, "-e", "stderr", "-c", str(config)], stdout=output, stderr=output)
    try:
        until = time.monotonic() + 20
        while not _answers(ready):
            assert process.poll() is None and time.monotonic() < until, (folder / "output.log").read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 204
    except httpx.HTTPError:
        return False
