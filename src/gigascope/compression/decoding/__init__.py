"""From files of Gaussians to volumes, regions, coarser levels, projections, and files of other programs."""
