"""Experiments: cells that are measured one after the other on a running lab, into an ordinary run record.

A scenario breaks something and watches; an experiment compares. Its record holds the table ``cells`` beside
``requests``, ``metrics`` and ``events``; ``reports/experiments/<name>.py`` makes the figures of it.
"""
