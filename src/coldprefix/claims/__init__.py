"""WHAT THE DATA SAY: each claim of claims.yaml is tested against a threshold that was stated beforehand, and gets a verdict."""
