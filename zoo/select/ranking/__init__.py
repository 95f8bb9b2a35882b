"""``zoo rank``: order backbones by how well they suit labelled data, from features that are computed once."""
