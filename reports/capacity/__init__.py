"""Capacity: what a lab was measured to carry, and a model of what it was not measured at.

Knows run records, never a live lab.
"""
