"""Settings of a simulation estimated from unlabelled real images: camera, attenuation, blur, nuclei."""
