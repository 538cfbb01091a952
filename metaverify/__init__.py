"""Learn from logs when to trust a cheap model, when to look again, and when to pay for a better one."""
