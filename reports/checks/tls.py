"""TLS as the poolers logged it: the share of logins and of server connections with TLS 1.2 or newer.

PgBouncer writes ``login attempt: db=… user=… tls=TLSv1.3/…`` (or ``tls=no``) for each client and ``SSL
established: TLSv1.3/…`` for each server connection that is encrypted. Replication, Redis and direct
connections are not in these logs, so this is not the whole promise.
"""

from __future__ import annotations

import re

from lab.record.reader import RecordReader
from reports.analysis.model import Analysis
from reports.analysis.pooling import NEW_SERVER
from reports.checks import Check
from reports.checks.common import nothing
from reports.findings import Finding

METRIC = "tls.poolers"
_LOGIN = re.compile(r"login attempt: db=\S+ user=\S+ tls=(\S+)")
_SERVER = re.compile(r" S-0x\w+: .*SSL established: (\S+)")
GOOD = ("TLSv1.2", "TLSv1.3")


def run(analysis: Analysis, record: RecordReader) -> list[Finding]:
    logins: dict[str, int] = {}
    servers = encrypted = 0
    for pool in analysis.pools:
        for line in record.logs.get(pool.pooler, "").splitlines():
            if (login := _LOGIN.search(line)) and "@unix" not in line:
                version = login[1].split("/")[0]
                logins[version] = logins.get(version, 0) + 1
            elif NEW_SERVER in line and "launching" not in line:
                servers += 1
            elif (server := _SERVER.search(line)) and server[1].split("/")[0] in GOOD:
                encrypted += 1
    if not logins:
        return [nothing(METRIC, "%", "not run", "the poolers' logs show no login with its TLS version")]
    good = sum(count for version, count in logins.items() if version in GOOD)
    return [
        Finding(
            metric=METRIC,
            unit="%",
            value=100 * good / sum(logins.values()),
            evidence=tuple(f"logs/{pool.pooler}.log" for pool in analysis.pools),
            detail={"logins": logins, "server_connections": servers, "server_connections_tls": encrypted},
        )
    ]


CHECK = Check("tls", {METRIC: "%"}, run)
