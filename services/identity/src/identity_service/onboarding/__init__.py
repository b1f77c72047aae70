"""The steps of a newcomer, and what he has done already."""
