"""WHO ENDS WITH WHOM: programs, servers, locks, and engines inside a process."""
