"""HOW a cell is measured: the protocol of a trial, its prompts, its verification, and the program's loop over engines."""
