"""Readers of policies that other people's code trained or wrote. None of them executes anything in a file."""
