"""Secrets and certificates: right by their RFCs, private on disk, and never in a rendered file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509

from lab.deploy import state
from lab.deploy.allocate import sample_allocation
from lab.deploy.certificates import make_authority, make_certificate
from lab.deploy.render import render
from lab.deploy.secret_names import secret_names
from lab.deploy.secrets import load_secrets, make_secrets, save_secrets, scram_verifier
from lab.errors import LabError
from lab.topology.loader import load_topology


def test_scram_verifier_is_that_of_rfc_7677() -> None:
    # RFC 7677, section 3: user "user", password "pencil", this salt, 4096 iterations. The exchange there
    # shows the client's proof and the server's signature, from which both keys of the verifier are checked.
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    verifier = scram_verifier("pencil", salt=salt)
    head, _, keys = verifier.rpartition("$")
    assert head == "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    stored, server = (base64.b64decode(part) for part in keys.split(":"))
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,"
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.digest(server, message, "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client_key = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, message, "sha256"), strict=True))
    assert hashlib.sha256(client_key).digest() == stored


def test_scram_verifier_differs_by_salt_and_refuses_what_would_need_saslprep() -> None:
    assert scram_verifier("a") != scram_verifier("a")
    with pytest.raises(ValueError, match="ASCII"):
        scram_verifier("pässword")


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    import socket

    left, right = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(left, server_side=True) as wrapped:
                wrapped.recv(1)
        except (ssl.SSLError, OSError):
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=name) as wrapped:
            wrapped.send(b"x")
    finally:
        right.close()
        thread.join()


def test_certificates_verify_for_their_names_only(tmp_path: Path) -> None:
    authority = make_authority("demo")
    certificate, key = make_certificate(authority, "pg1", ["pg1", "router"], ["127.0.0.1", "10.0.0.5"])
    (tmp_path / "crt").write_text(certificate)
    (tmp_path / "key").write_text(key)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    client = ssl.create_default_context(cadata=authority.pem)
    for name in ("pg1", "router", "10.0.0.5"):
        _handshake(server, client, name)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(server, client, "pg2")
    stranger = ssl.create_default_context(cadata=make_authority("demo").pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(server, stranger, "pg1")


def test_secrets_of_a_lab_are_complete_private_and_in_no_rendered_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_STATE_DIR", str(tmp_path / ".lab"))
    topology = load_topology("risk-prod")
    allocation = sample_allocation("demo", topology)
    made = make_secrets(topology, allocation)
    assert set(made) >= set(secret_names(topology).all())
    folder = state.lab_dir("demo")
    state.make_private(folder)
    save_secrets(folder, made)
    assert load_secrets(folder) == made
    assert stat.S_IMODE((folder / "secrets.env").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    everything = "\n".join(render(topology, allocation).values())
    for name, value in made.items():
        assert value not in everything, name
    other = make_secrets(topology, allocation)
    assert all(other[name] != value for name, value in made.items())


def test_node_certificates_name_router_proxy_and_localhost() -> None:
    topology = load_topology("risk-prod")
    allocation = sample_allocation("demo", topology)
    made = make_secrets(topology, allocation)
    certificate = x509.load_pem_x509_certificate(made["pg1.crt"].encode())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"pg1", "pg1.control", "router", "localhost"} <= set(names.get_values_for_type(x509.DNSName))


def test_missing_secrets_are_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(LabError) as caught:
        load_secrets(tmp_path)
    assert caught.value.hint
