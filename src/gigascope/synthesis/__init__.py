"""Virtual 3D cell cultures with exact labels, made real-looking, and measured."""
