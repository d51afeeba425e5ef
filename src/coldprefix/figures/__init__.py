"""The figures, one module each; style.py is what they share."""
