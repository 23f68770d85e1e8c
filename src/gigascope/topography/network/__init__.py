"""The network that finds the slice of best focus: model, evidence, losses, and training on the data themselves."""
