"""The residual layer: what Gaussians leave, within a bound, over a prediction in integers."""
