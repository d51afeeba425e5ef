"""WHAT is measured: the configuration, its checks, and the plan that follows from it."""
