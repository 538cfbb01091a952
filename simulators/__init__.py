"""Replay: logs, their readers, what a policy would have earned on them, and worlds with a known truth."""
