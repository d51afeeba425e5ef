"""coldprefix measures what a cold prefix costs: the time an LLM engine loses when an edit invalidates its KV cache."""

__version__ = "0.1.0"
