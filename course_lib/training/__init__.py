"""Updates, the loop around them, what it reports and how it survives an interruption."""
