"""The processes of a run: collectives, heartbeats, consistency checks, sharding."""
