"""From views to one picture: blended tiles, offsets between views, shaded relief, pictures and meshes for others."""
