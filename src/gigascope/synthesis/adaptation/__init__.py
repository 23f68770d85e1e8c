"""Moving simulated images towards the look of real ones: networks, training on streamed crops, inference in windows."""
