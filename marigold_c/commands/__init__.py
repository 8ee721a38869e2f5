"""The command `marigold`, a file for each subcommand: its flags and what it does. Called by nobody below."""
