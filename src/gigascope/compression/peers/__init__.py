"""The codecs that a user would pick instead."""
