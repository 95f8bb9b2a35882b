"""Names of the pruners, in a module of their own that the command line imports at every start."""

PRUNERS = ("median", "hyperband", "none")
