"""How far the numbers can be trusted: the harness against null engines, and beside the engines' own instruments."""
