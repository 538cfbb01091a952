"""From nothing to a log: every tier and every verifier asked on a set of prompts, and the answers graded."""
