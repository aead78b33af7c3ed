"""How good is it? Measures of trained networks."""
