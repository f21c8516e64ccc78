"""Runs: a config becomes a folder that can be resumed."""
