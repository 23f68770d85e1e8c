"""Domain A: the real images whose look is aimed at, and their labels where there are any."""
