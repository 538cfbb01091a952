"""Decide: load a policy file and route queries with it.  Standard library only."""
