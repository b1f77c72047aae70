"""The board: tickets by column, moves, limits on work in progress."""
