"""``zoo rank``: order backbones by how well they suit labelled data, at a cost of about one pass over the data each."""
