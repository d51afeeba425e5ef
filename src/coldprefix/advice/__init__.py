"""WHAT TO DO ABOUT IT: where in a prompt the parts that change should stand, from what was measured."""
