"""The artifact: a run that is shipped, made again from its raw data, and set beside what an evaluator measures."""
