"""The files of a study: schemas, safe writing, reading and summaries. No torch, no Ray."""
