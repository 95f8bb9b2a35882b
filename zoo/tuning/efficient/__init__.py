"""Parameter-efficient updates: few new parameters beside a backbone whose own stay as they are."""
