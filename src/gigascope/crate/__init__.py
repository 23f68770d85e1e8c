"""RO-Crates of finished datasets: what made every file of a result, in words that other programs read."""
