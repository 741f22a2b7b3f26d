"""Where data lies: names, schemas, reading in contract order, atomic writing, digests and records. Files only."""
