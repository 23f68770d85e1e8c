"""What a running stage is given (inputs, outputs, device, seed, log, progress, checkpoints), and what is kept of it."""
