"""What a running server's cache does, found out from outside in a minute or two."""
