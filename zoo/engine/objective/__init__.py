"""Objectives, the losses that runs minimise: their base, that of labels, and the checks of one of the user's own."""
