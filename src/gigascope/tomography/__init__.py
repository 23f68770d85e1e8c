"""Fiducial-less alignment and total-variation reconstruction of electron tilt series."""
