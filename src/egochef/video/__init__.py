"""Reading, writing and drawing on video. Knows nothing of datasets or models."""
