"""Commands that choose: a backbone, a recipe and its options, or what several runs become together."""
