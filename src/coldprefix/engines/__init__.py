"""WITH WHAT is measured: an engine is a folder with an `ENGINE` (contract.Engine) in its engine.py."""
