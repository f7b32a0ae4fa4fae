"""A local lab that tells whether a PostgreSQL architecture will hold."""

__version__ = "0.1.0"
