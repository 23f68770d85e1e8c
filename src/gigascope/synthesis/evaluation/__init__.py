"""How real the images look, how well they keep their labels, and what segmenters make of them."""
