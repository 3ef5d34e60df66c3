"""LM-BFF (2012.15723): templates, label words and demonstrations found on the labelled rows."""
