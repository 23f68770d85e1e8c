"""Where z-stacks come from, whatever their format, and how their pixels and views are ordered."""
