"""How good a compressed volume is, beside its peers and by the definitions of VolMicro."""
