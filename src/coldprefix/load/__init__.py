"""WHAT A MISS COSTS THE NEIGHBOURS: steady clients at the same time, while another one's prefix misses."""
