"""``python -m zoo.cli`` is the command ``zoo``."""

from zoo.cli.app import main

main()
