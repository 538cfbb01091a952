"""Learn: joint tables from logs, the exact solver, the frontier, and the policies on it."""
