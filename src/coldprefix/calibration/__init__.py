"""How far the clock can be trusted: the harness against engines whose times are known."""
