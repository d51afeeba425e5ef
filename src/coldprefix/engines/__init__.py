"""The engines: one contract (session.py), two interfaces for each of two engines."""
