"""The command line: parsing, calls and printing; heavy libraries are imported only by the commands that need them."""

from zoo.cli.app import main as main
