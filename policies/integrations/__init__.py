"""Where a policy meets the software of others: each module needs the extra of its name."""
