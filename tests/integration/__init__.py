"""Tests on a real lab: they need a container engine."""
