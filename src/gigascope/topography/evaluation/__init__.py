"""How good a mosaic and its heights are: against the truth, and by what the views say of each other."""
