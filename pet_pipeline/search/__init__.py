"""LM-BFF (2012.15723) and kin: templates and label words found on the labelled rows."""
