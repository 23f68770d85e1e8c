"""Settings and crops of the published program of Bruch et al. (2023), as sections of a dataset and a library."""
