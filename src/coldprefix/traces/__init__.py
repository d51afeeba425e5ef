"""YOUR TRAFFIC: a trace of requests, read, analysed without an engine, and replayed on one."""
