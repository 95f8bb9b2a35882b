"""A dry run: phases, memory and time before anything is trained."""
