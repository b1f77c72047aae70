"""Handing out tasks: the long poll that turns a ready task into a started sandbox."""
