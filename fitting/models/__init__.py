"""Estimators: from coded rows to a joint table."""
