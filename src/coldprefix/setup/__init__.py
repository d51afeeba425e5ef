"""What must exist before anything runs: environments and builds, cached by content outside the checkout."""
