"""Focus of one view: order and registration of slices, sub-slice peaks of sharpness, the all-in-focus picture."""
