"""The load: what runs inside the ``client`` node, and the format that the host reads.

A workload is one file here that defines a subclass of ``PostgresUser``; see ``risk_api.py``.
What the host imports (config, format, workloads, arrivals, outcomes) needs neither gevent nor Locust.
"""
