"""Domain adaptation: labelled data of a source domain, unlabelled data of a target domain."""
