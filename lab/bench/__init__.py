"""Figures of the lab itself: how fast, how exact, how cheap; as ratios measured side by side where possible.

up.py           (a) `lab up` against a bare `docker compose up` of the same project
load.py         (b) the Locust user class against pgbench
collectors.py   (c) throughput with every collector on against off
yardstick.py    (d) outages of known length against what the lab measures
analysis.py     (e) analysis and report of large records
"""
