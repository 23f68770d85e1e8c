"""What the trainings of several chains share: processes that train as one, losses that can be looked at meanwhile."""
