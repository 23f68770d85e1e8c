"""Dataset configuration: pydantic models in which every default, unit and description lives once."""
