"""What the raw data say: trials, statistics, warnings, two runs side by side."""
