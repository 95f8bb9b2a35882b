"""Multi-process runs: collectives, heartbeats, consistency checks, sharding."""
