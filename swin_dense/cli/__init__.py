"""The commands: they parse, call the rooms below, and print. Each file is one command."""
