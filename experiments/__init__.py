"""What the user runs: scenarios, replays, the stress sweep, tables, figures and the command line."""
