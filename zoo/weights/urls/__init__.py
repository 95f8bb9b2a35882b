"""Files of https addresses."""
