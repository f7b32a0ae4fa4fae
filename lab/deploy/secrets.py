"""Secrets of one lab: generated, kept in ``secrets.env`` (0600) of its state folder, and nowhere else.

They reach the containers through Compose's environment (never argv, never a rendered file). The values
in the file stand in single quotes, which keep ``$`` and line breaks as they are.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from lab.deploy.allocation import Allocation
from lab.deploy.certificates import make_authority, make_certificate
from lab.deploy.secret_names import certificate_names, secret_names, variable
from lab.deploy.state import write_private
from lab.errors import LabError
from lab.topology.models import Topology

FILE = "secrets.env"
SCRAM_ITERATIONS = 4096
"""PostgreSQL's own default (scram_iterations), and the least that RFC 7677 allows."""
_ENTRY = re.compile(r"^# (?P<name>\S+)\n(?P<variable>[A-Z0-9_]+)='(?P<value>[^']*)'$", re.MULTILINE)


def new_password() -> str:
    """192 random bits in hexadecimal digits, which need no quoting anywhere."""
    return secrets.token_hex(24)


def scram_verifier(password: str, *, salt: bytes | None = None, iterations: int = SCRAM_ITERATIONS) -> str:
    """The form in which PostgreSQL and PgBouncer store a SCRAM-SHA-256 password.

    ``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>``, with the keys of RFC 5802, section 3:
    SaltedPassword = Hi(password, salt, i); ClientKey = HMAC(SaltedPassword, "Client Key");
    StoredKey = H(ClientKey); ServerKey = HMAC(SaltedPassword, "Server Key"); H is SHA-256 (RFC 7677).

    Args:
        password: ASCII only, so that SASLprep changes nothing.
        salt: 16 random bytes where None.
        iterations: of PBKDF2 (Hi).

    Raises:
        ValueError: the password is not ASCII.
    """
    if not password.isascii():
        raise ValueError("only ASCII passwords: others would need SASLprep")
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    b64 = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{b64[0]}${b64[1]}:{b64[2]}"


def make_secrets(topology: Topology, allocation: Allocation) -> dict[str, str]:
    """Every secret of a new lab by its name: passwords, verifiers, certificates and keys."""
    names = secret_names(topology)
    made: dict[str, str] = {name: new_password() for name in names.plain}
    for role in names.roles:
        made[f"password_{role}"] = new_password()
        made[f"verifier_{role}"] = scram_verifier(made[f"password_{role}"])
    if names.certificates:
        authority = make_authority(allocation.lab)
        made["ca.crt"] = authority.pem
        for node, subject in certificate_names(topology, allocation).items():
            made[f"{node}.crt"], made[f"{node}.key"] = make_certificate(
                authority, node, subject.dns, subject.addresses
            )
    missing = sorted(set(names.all()) - set(made))
    if missing:
        raise LabError(f"no rule says how to make the secrets {', '.join(missing)}")
    return made


def save_secrets(folder: Path, made: Mapping[str, str]) -> None:
    """Write ``secrets.env`` for Compose, and ``ca.crt`` for people's clients."""
    text = "".join(f"# {name}\n{variable(name)}='{value}'\n" for name, value in sorted(made.items()))
    write_private(folder / FILE, text)
    if "ca.crt" in made:
        write_private(folder / "ca.crt", made["ca.crt"])


def load_secrets(folder: Path) -> dict[str, str]:
    """Every secret of a lab by its name.

    Raises:
        LabError: the file is missing or damaged.
    """
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise LabError(
            f"the secrets of the lab are missing: {folder / FILE}",
            hint=f"`lab down --name {folder.name}` removes the lab; bring it up anew.",
        ) from error
    return {match["name"]: match["value"] for match in _ENTRY.finditer(text)}
