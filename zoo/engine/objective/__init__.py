"""What a run minimises: the base of all objectives, that of labels, and the checks of an own one."""
