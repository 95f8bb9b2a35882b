"""The command line. Thin: it parses, calls and prints; nothing heavy is imported before a command needs it."""

from zoo.cli.app import main as main
