"""Where every camera stands and how it sees: focus of a flat target, its registration, poses, illumination."""
