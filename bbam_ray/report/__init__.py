"""Reports, made from a study's files alone."""
