"""What goes into an image build besides its Dockerfile: context, CA bundle, Go settings, environment."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from lab.errors import UsageError

CA_FILE = "ca-bundle.crt"
"""Name of the CA bundle in every build context; empty where the host has none."""

_FROM = re.compile(r"^FROM\s+debian:([a-z]+)-slim\b", re.MULTILINE)
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_CA_PLACES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # macOS
)
_GO_SETTINGS = ("GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "GOINSECURE")


def ca_bundle() -> Path | None:
    """The host's CA bundle: ``LAB_CA_BUNDLE``, what the usual variables name, or the usual places.

    Raises:
        UsageError: ``LAB_CA_BUNDLE`` names no readable file.
    """
    given = os.environ.get("LAB_CA_BUNDLE")
    if given:
        if not Path(given).is_file():
            raise UsageError(f"LAB_CA_BUNDLE={given} is not a file", hint="Name a PEM file, or unset it.")
        return Path(given)
    named = [os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)]
    return next(
        (Path(p) for p in (*named, *_CA_PLACES) if Path(p).is_file() and Path(p).stat().st_size), None
    )


def context_files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Files of a build context: relative path → mode (0644 or 0755) and content.

    Modes are normalised, so that the umask of a checkout changes neither hash nor image.
    """
    return {
        path.relative_to(folder).as_posix(): (0o755 if path.suffix == ".sh" else 0o644, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CA_FILE and "__pycache__" not in path.parts
    }


def context_hash(files: Mapping[str, tuple[int, bytes]], *bases: str) -> str:
    """12 hexadecimal digits over a build context and what it stands on."""
    digest = hashlib.sha256()
    for path, (mode, content) in sorted(files.items()):
        digest.update(f"{path}\0{mode:o}\0{len(content)}\0".encode() + content)
    for base in bases:
        digest.update(f"\0base {base}".encode())
    return digest.hexdigest()[:12]


def context_tar(files: Mapping[str, tuple[int, bytes]], bundle: bytes) -> bytes:
    """A build context as a tar archive, with the CA bundle (empty: none) added to it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, (mode, content) in sorted({**files, CA_FILE: (0o644, bundle)}.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def base_suite(dockerfile: str) -> str:
    """The Debian release of the image that a Dockerfile makes (its last ``FROM debian:…-slim``)."""
    found = _FROM.findall(dockerfile)
    if not found:
        raise ValueError("no line 'FROM debian:<release>-slim'")
    return str(found[-1])


def go_settings() -> dict[str, str]:
    """The host's Go settings (``go env``), so that a build fetches modules the way the host does."""
    if shutil.which("go"):
        try:
            done = subprocess.run(
                ["go", "env", "-json", *_GO_SETTINGS], capture_output=True, timeout=20, check=True, cwd="/"
            )
            found = json.loads(done.stdout)
            return {key: str(found[key]) for key in _GO_SETTINGS if found.get(key)}
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            pass  # a broken Go is no reason to fail: its variables may still be set
    return {key: os.environ[key] for key in _GO_SETTINGS if os.environ.get(key)}


def build_environment() -> dict[str, str]:
    """Environment of build commands: plain output, and the builder that belongs to the engine in use.

    A builder of its own (buildx's docker-container driver) sees no local base image and keeps its
    results to itself. Without buildx the variable means nothing.
    """
    environment = {**os.environ, "BUILDKIT_PROGRESS": "plain"}
    try:
        done = subprocess.run(["docker", "context", "show"], capture_output=True, timeout=20, check=True)
        environment["BUILDX_BUILDER"] = done.stdout.decode().strip() or "default"
    except (OSError, subprocess.SubprocessError):
        pass  # an older command line has no contexts, and so no builders beside the engine's own
    return environment
